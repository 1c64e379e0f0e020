"""Ingest: any source of labelled images -> ``images``, their labels as they were given, and ``rejects``.

Two passes over the chunks of the source. The first decodes every image, to learn which are readable and what
labels there are (`scan`); then ids are given (`assign`); the second pass writes the parts. What the first
pass learns of single rows stays in memory where they are few, else it lies in the storage meanwhile (`rows`).
"""

from __future__ import annotations

import functools

from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.ingest.assign import assign_rows
from cwerm.stages.ingest.classes import check_classes, encode
from cwerm.stages.ingest.extra import told_of_extra
from cwerm.stages.ingest.known import ToScan, find_known, remember
from cwerm.stages.ingest.rows.held import HeldRows
from cwerm.stages.ingest.rows.parts import PartCounts, ToWrite, part_writer
from cwerm.stages.ingest.rows.survey import Survey
from cwerm.stages.ingest.rows.tables import DIGESTS, LABELS, BesideImages
from cwerm.stages.ingest.scan import check_rejects, scanner
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.ingest.several import number_of_sources, told_of_sources
from cwerm.stages.ingest.sources import plan_chunks
from cwerm.stages.ingest.told import full_scale, understood
from cwerm.stages.ingest.write import ChunkWriter
from cwerm.stages.outside import naming
from cwerm.stages.stage import Context, Inputs, Stage, always
from cwerm.store.artifacts import Artifact, File
from cwerm.store.schema import EXTRA
from cwerm.terminal import console

__all__ = ["DIGESTS", "LABELS", "ingest"]


def _run(settings: IngestSettings, inputs: Inputs, context: Context) -> Artifact:
    """Read every source, give ids, write images and labels.

    Raises:
        UserError: no or too few readable images, one class only, too many rejects, or too few images of
            a class for what is to be drawn.
    """
    del inputs
    chunks = plan_chunks(context.outside, settings.rows_per_part)
    pool = worker_pool(context, "ingest", len(chunks), key="data.rows_per_part")
    sources, writer = context.outside.sources, context.writer
    address = context.outside.addresses["source"]
    recorded = find_known(context.store, context.outside, chunks)
    survey = Survey(chunks, HeldRows(writer, [chunk.size for _, _, chunk in chunks]))
    to_scan = ToScan(context.outside, chunks, recorded)
    for index, scan in pool.map(functools.partial(scanner, sources), to_scan, "ingest: check"):
        survey.add(index, scan)
    survey.rows.finish()
    names, code_of = encode(sources, survey.seen)
    rejects, total = survey.rejects, survey.rows.total
    if survey.num_known:
        count = f"{survey.num_known:,} of {total:,}"
        console.note(f"{count} images were read by an earlier run: not read again")
    if rejects:
        limit = context.limits["data.max_rejects"]
        check_rejects(limit, len(rejects), total, rejects[0])
    check_classes(address, names, survey.class_sizes(code_of, len(names)))

    scale = full_scale(survey.largest)
    assignment = assign_rows(settings, names, survey, code_of)
    counts = PartCounts(assignment, number_of_sources(sources["source"]), len(names))
    beside = BesideImages(writer, scale, survey.tells)
    for block in assignment.blocks():
        counts.add(block)
        beside.add(block)
    extra = sources["source"].extra_columns()
    known = recorded.images if recorded else None
    write = functools.partial(ChunkWriter, sources, context.store, writer, extra, known)
    make = functools.partial(part_writer, write, writer, code_of, scale, recorded is not None)
    tables: dict[str, dict[int, File]] = {}
    for _, files in pool.map(make, ToWrite(counts), "ingest: write"):
        for table, index, file in files:
            tables.setdefault(table, {})[index] = file
    for role, source in sources.items():
        with naming(role):
            source.check_unchanged()
    counts.check(tables)
    parts = {
        table: [file for _, file in sorted(tables[table].items())]
        for table in (*LABELS, EXTRA)
        if table in tables
    }
    parts.setdefault("test_images", [])
    columns = [[path for path, _ in rejects], [reason for _, reason in rejects]]
    parts |= beside.finish(parts, rejects=common.table("rejects", *columns))
    survey.rows.forget()
    told = (names, counts.images.sum(axis=0), survey.largest)
    made = writer.commit(
        parts,
        {
            "class_names": names,
            "num_rejects": len(rejects),
            "num_read": total,
            "median_short_side": survey.median_short_side,
            "full_scale": scale,
            "common_size": survey.common_size,
            "drawn": sorted({*tables} - {table for table, _, _ in chunks} - {EXTRA}),
            "understood": [
                *understood(settings, sources, chunks, *told),
                *told_of_sources(sources["source"], counts.images, names),
                *told_of_extra(sources["source"]),
            ],
        },
    )
    remember(context.store, address, made)
    return made


ingest = Stage("ingest", 9, always(), IngestSettings.of, _run)
