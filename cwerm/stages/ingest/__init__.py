"""Ingest: any source of labelled images -> ``images``, their labels as they were given, and ``rejects``.

Two passes over the chunks of the source. The first decodes every image, to learn which are readable and what
labels there are (`scan`); then ids are given (`assign`); the second pass writes the parts.
"""

from __future__ import annotations

import functools
import hashlib
from itertools import islice

import numpy as np
import pyarrow as pa

from cwerm.data.images import FULL_SCALES
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.ingest.assign import ChunkRows, assign_rows
from cwerm.stages.ingest.classes import check_classes, encode
from cwerm.stages.ingest.extra import told_of_extra
from cwerm.stages.ingest.known import CONTENTS, contents_of, find_known, remember
from cwerm.stages.ingest.scan import Scan, check_rejects, parts_of, scanner
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.ingest.several import told_of_sources
from cwerm.stages.ingest.sources import WorkItem, plan_chunks
from cwerm.stages.ingest.told import full_scale, understood
from cwerm.stages.ingest.write import ChunkWork, ChunkWriter
from cwerm.stages.outside import naming
from cwerm.stages.stage import Context, Inputs, Stage, always
from cwerm.store.artifacts import Artifact, File
from cwerm.store.schema import EXTRA
from cwerm.terminal import console

LABELS = {
    "images": "given_labels",
    "validation_images": "given_validation_labels",
    "test_images": "given_test_labels",
    "trusted_images": "trusted_labels",
}
DIGESTS = {
    "images": "digests",
    "validation_images": "validation_digests",
    "test_images": "test_digests",
    "trusted_images": "trusted_digests",
}


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
    address, contents = context.outside.addresses["source"], contents_of(context.outside, chunks)
    known = find_known(context.store, address, contents)
    recorded = known.chunks if known else [None] * len(chunks)
    scanned = dict(
        pool.map(
            functools.partial(scanner, sources),
            list(zip(chunks, recorded, strict=True)),
            "ingest: check",
        )
    )
    scans = [scanned[i] for i in range(len(chunks))]
    names, codes = encode(sources, chunks, scans)
    rejects = [entry for scan in scans for entry in scan.rejects]
    total = sum(chunk.size for _, _, chunk in chunks)
    if count := sum(int((found.rows >= 0).sum()) for found in recorded if found):
        console.note(f"{count:,} of {total:,} images were read by an earlier run: not read again")
    if rejects:
        limit = context.limits["data.max_rejects"]
        check_rejects(limit, len(rejects), total, rejects[0])
    check_classes(address, names, chunks, codes)

    largest = np.concatenate([scan.deep for scan in scans])
    work = assigned(settings, names, chunks, scans, codes)
    rows = [row for _, parts in work for row in parts]
    extra = sources["source"].extra_columns()
    write = functools.partial(ChunkWriter, sources, context.store, writer, extra, known)
    todo = [
        ChunkWork(chunk, parts, found.rows if found else None)
        for (chunk, parts), found in zip(work, recorded, strict=True)
        if any(part.ids for part in parts)
    ]
    tables: dict[str, dict[int, File]] = {}
    for _, files in pool.map(write, todo, "ingest: write"):
        for table, index, file in files:
            tables.setdefault(table, {})[index] = file
    for role, source in sources.items():
        with naming(role):
            source.check_unchanged()
    _check_rows(tables, rows)
    parts = {
        table: [file for _, file in sorted(tables[table].items())]
        for table in (*LABELS, EXTRA)
        if table in tables
    }
    parts.setdefault("test_images", [])
    labels = {name: _labels_table(rows, table) for table, name in LABELS.items() if table in parts}
    digests = {
        name: _digests_table(rows, table) for table, name in DIGESTS.items() if table in parts
    }
    whole = labels | digests | _contents_table(rows, contents, scans, [*LABELS.keys() & parts])
    parts |= {name: [writer.write_part(name, 0, table)] for name, table in whole.items()}
    columns = [[path for path, _ in rejects], [reason for _, reason in rejects]]
    parts["rejects"] = [writer.write_part("rejects", 0, common.table("rejects", *columns))]
    heights, widths = (
        np.concatenate(found) for found in zip(*(s.sides for s in scans), strict=True)
    )
    shapes = np.unique(np.stack([heights, widths]), axis=1)
    given = common.column(labels["given_labels"], "label")
    made = writer.commit(
        parts,
        {
            "class_names": names,
            "num_rejects": len(rejects),
            "num_read": total,
            "median_short_side": int(np.median(np.minimum(heights, widths))),
            "full_scale": full_scale(largest),
            "common_size": shapes[:, 0].tolist() if shapes.shape[1] == 1 else None,
            "drawn": sorted({*tables} - {table for table, _, _ in chunks} - {EXTRA}),
            "understood": [
                *understood(settings, sources, chunks, names, given, largest),
                *told_of_sources(sources["source"], _training(work), names),
                *told_of_extra(sources["source"]),
            ],
        },
    )
    remember(context.store, address, made)
    return made


ingest = Stage("ingest", 9, always(), IngestSettings.of, _run)


def _training(work: list[tuple[WorkItem, list[ChunkRows]]]) -> list[tuple[int, np.ndarray]]:
    """The classes of each chunk's training images, with the number of their source."""
    return [
        (chunk.source, part.labels[part.ids["images"] >= 0])
        for (_, _, chunk), parts in work
        for part in parts
        if "images" in part.ids
    ]


def assigned(
    settings: IngestSettings,
    names: list[str],
    chunks: list[WorkItem],
    scans: list[Scan],
    codes: list[np.ndarray],
) -> list[tuple[WorkItem, list[ChunkRows]]]:
    """Each chunk with the parts that it becomes."""
    scale = full_scale(np.concatenate([scan.deep for scan in scans]))
    lengths = [parts_of(c, scan.sizes) for (_, _, c), scan in zip(chunks, scans, strict=True)]
    table_of = [table for (table, _, _), parts in zip(chunks, lengths, strict=True) for _ in parts]
    digests = _in_parts([scan.digests for scan in scans], lengths)
    pixels = _in_parts([scan.pixels for scan in scans], lengths)
    rows = assign_rows(settings, names, table_of, _in_parts(codes, lengths), pixels)
    for row, whole, image in zip(rows, digests, pixels, strict=True):
        row.digests, row.pixels, row.full_scale = whole, image, scale
    left = iter(rows)
    return [(c, list(islice(left, len(n)))) for c, n in zip(chunks, lengths, strict=True)]


def _in_parts(of_chunks: list[np.ndarray], lengths: list[list[int]]) -> list[np.ndarray]:
    """Values of each chunk's rows, cut into those of its parts."""
    return [
        part
        for values, rows in zip(of_chunks, lengths, strict=True)
        for part in np.split(values, np.cumsum(rows)[:-1])
    ]


def _check_rows(tables: dict[str, dict[int, File]], rows: list[ChunkRows]) -> None:
    """Every id is given once, from 0 without a hole, and every part holds what was given to it."""
    for table in sorted({table for row in rows for table in row.ids}):
        given = {row.index: row.ids[table] for row in rows if table in row.ids}
        kept = {index: ids[ids >= 0] for index, ids in given.items()}
        ids = np.concatenate([kept[index] for index in sorted(kept)])
        assert np.array_equal(ids, np.arange(len(ids))), f"ids of {table} have holes"
        written = {index: file.rows for index, file in tables[table].items()}
        assert written == {index: len(ids) for index, ids in kept.items()}, f"parts of {table}"


def _labels_table(rows: list[ChunkRows], table: str) -> pa.Table:
    """Labels of one table's images in the order of their ids, as the source has them."""
    parts = [part for part in rows if table in part.ids]
    ids = [part.ids[table] for part in parts]
    labels = [part.labels[kept >= 0] for part, kept in zip(parts, ids, strict=True)]
    found = np.concatenate(labels) if labels else np.empty(0, np.int32)
    return common.table(LABELS[table], np.arange(len(found)), found)


def _digests_table(rows: list[ChunkRows], table: str) -> pa.Table:
    """What tells each image of a table from any other, in the order of their ids."""
    found: list[bytes] = []
    for part in rows:
        if table in part.ids:
            # images of more than 8 bits are read by the data set's scale
            scale = b"" if part.full_scale == FULL_SCALES[-1] else str(part.full_scale).encode()
            kept = part.pixels[part.ids[table] >= 0]
            found += [hashlib.sha256(row.tobytes() + scale).digest()[:16] for row in kept]
    return common.table(DIGESTS[table], np.arange(len(found)), found)


def _contents_table(
    rows: list[ChunkRows], contents: list[np.ndarray], scans: list[Scan], tables: list[str]
) -> dict[str, pa.Table]:
    """What lets later runs know these images again; nothing where the source can't tell without reading.

    Images of more than 8 bits are not known again: they may lie in the store with another scale.
    """
    told, largest = np.concatenate(contents), np.concatenate([scan.largest for scan in scans])
    told = np.where(largest[:, None] < 0, told, 0)
    if not told.any():
        return {}
    ends = np.cumsum([len(part.labels) for part in rows])
    at = [
        end - len(part.labels) + np.flatnonzero(part.ids[table] >= 0)
        for table in sorted(tables)
        for part, end in zip(rows, ends, strict=True)
        if table in part.ids
    ]
    order = np.concatenate(at)
    pixels = np.concatenate([scan.pixels for scan in scans])
    learned = [
        np.concatenate([getattr(scan, name) for scan in scans])[order]
        for name in ("height", "width", "sizes")
    ]
    digests = [common.digests(values[order]) for values in (told, pixels)]
    return {CONTENTS: common.table(CONTENTS, *digests, *learned)}
