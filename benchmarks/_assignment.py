"""The step `ingest` of scale.py: all that ingest does with rows beside reading and writing images."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from cwerm.data.source import Chunk
from cwerm.runtime.parallel import worker_pool
from cwerm.stages.ingest.assign import assign_rows
from cwerm.stages.ingest.rows.held import HeldRows
from cwerm.stages.ingest.rows.parts import PartCounts, ToWrite, part_writer
from cwerm.stages.ingest.rows.survey import Survey
from cwerm.stages.ingest.rows.tables import BesideImages
from cwerm.stages.ingest.scan import Scan
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.ingest.write import ChunkWork, Written
from cwerm.stages.plan import Plan
from cwerm.stages.stage import Context
from cwerm.store.artifacts import File
from cwerm.store.beside import Later
from cwerm.store.writing import Writer

ROWS_A_CHUNK = 1024
# a thousandth of a real scan's: what workers make before it is asked for waits in the driver's memory
SECONDS_A_CHUNK = 0.003
COPIES, COPIED = 0.01, 10_000  # the share of the rows that repeat one of so many images
NO_SCALE = 65535


def assign(steps: Plan, rows: int, classes: int) -> float:
    """Take scans that are drawn by the workers, give ids, and write labels and digests.

    A tenth of each class is drawn for test and for validation, and a long tail is made. Returns the processor
    seconds in which the driver works alone.
    """
    writer = Writer(steps.store, "ingest", "made_up", {})
    context = Context.of(steps.job, steps.outside, steps.store, writer)
    settings = IngestSettings.of(steps.job, steps.outside)
    settings = settings.model_copy(
        update={"test_fraction": 0.1, "validation_fraction": 0.1, "imbalance": 2.0}
    )
    items: list[WorkItem] = [
        ("images", "source", Chunk("train", start, min(ROWS_A_CHUNK, rows - start)))
        for start in range(0, rows, ROWS_A_CHUNK)
    ]
    pool = worker_pool(context, "ingest", len(items))
    survey = Survey(items, HeldRows(writer, [chunk.size for _, _, chunk in items]))
    for index, scan in pool.map(partial(_scanner, classes), items, "made up"):
        survey.add(index, scan)
    survey.rows.finish()
    began = time.process_time()
    code_of = np.array([seen.label for seen in survey.seen], np.int32)
    names = [f"class {number}" for number in range(classes)]
    assignment = assign_rows(settings, names, survey, code_of)
    counts, beside = PartCounts(assignment, 1, classes), BesideImages(writer, NO_SCALE, False)
    for block in assignment.blocks():
        counts.add(block)
        beside.add(block)
    alone = time.process_time() - began
    make = partial(part_writer, _counter, writer, code_of, NO_SCALE, False)
    tables: dict[str, dict[int, File]] = {}
    for _, files in pool.map(make, ToWrite(counts), "ids"):
        for table, index, file in files:
            tables.setdefault(table, {})[index] = file
    counts.check(tables)
    beside.finish(tables)
    survey.rows.forget()
    return alone


def _scanner(classes: int) -> Callable[[WorkItem], Scan]:
    copied = np.random.default_rng(0).integers(256, size=(COPIED, 16), dtype=np.uint8)

    def scan(item: WorkItem) -> Scan:
        time.sleep(SECONDS_A_CHUNK)
        chunk = item[2]
        draw = np.random.default_rng([1, chunk.start])
        found = draw.integers(256, size=(2, chunk.size, 16), dtype=np.uint8)
        is_copy = draw.random(chunk.size) < COPIES
        found[1, is_copy] = copied[draw.integers(COPIED, size=int(is_copy.sum()))]
        labels, label_of = np.unique(draw.integers(classes, size=chunk.size), return_inverse=True)
        sides = draw.integers(300, 500, size=(2, chunk.size)).astype(np.int32)
        sizes = draw.integers(10_000, size=chunk.size)
        nothing = np.full(chunk.size, -1, np.int32)
        readable = np.ones(chunk.size, bool)
        return Scan(
            readable, labels.tolist(), label_of.astype(np.int32), [], found[0], found[1],
            sides[0], sides[1], sizes, nothing,
        )  # fmt: skip

    return scan


def _counter() -> Callable[[ChunkWork], Later[Written]]:
    """Counts what would be written."""

    def count(work: ChunkWork) -> Later[Written]:
        found = [
            (name, part.index, File("", 0, part.contents(name), int((ids >= 0).sum())))
            for part in work.parts
            for name, ids in part.ids.items()
        ]
        return Later(lambda: found)

    return count
