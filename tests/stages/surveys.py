"""Rows of a source as if they had been scanned, and what ingest makes of them; without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cwerm.data.source import Chunk
from cwerm.stages.ingest.assign import Assignment, ChunkRows
from cwerm.stages.ingest.rows.held import HeldRows, StoredReader
from cwerm.stages.ingest.rows.parts import PartCounts, ToWrite
from cwerm.stages.ingest.rows.survey import Survey
from cwerm.stages.ingest.scan import Scan
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.ingest.write import ChunkWork
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import LocalStorage
from cwerm.store.writing import Writer


def writer_in(folder: object) -> Writer:
    return Writer(ArtifactStore(LocalStorage(str(folder))), "ingest", "k", {})


NOWHERE = writer_in("/nowhere")  # for what stays in memory


def scan_of(codes: np.ndarray, pixels: np.ndarray) -> Scan:
    """Images of 8 x 9 pixels whose labels are the numbers of their classes; -1 for one that can't be read."""
    labels, label_of = np.unique(np.maximum(codes, 0), return_inverse=True)
    size = len(codes)
    height, width = np.full(size, 8, np.int32), np.full(size, 9, np.int32)
    nothing = np.full(size, -1, np.int32)
    return Scan(
        codes >= 0, labels.tolist(), label_of.astype(np.int32), [], pixels[::-1], pixels,
        height, width, np.ones(size, np.int64), nothing,
    )  # fmt: skip


def survey_of(items: Sequence[WorkItem], scans: Sequence[Scan], writer: Writer) -> Survey:
    """All of these scans, which come in another order than that of the source."""
    survey = Survey(items, HeldRows(writer, [chunk.size for _, _, chunk in items]))
    for index in [*range(1, len(scans), 2), *range(0, len(scans), 2)]:
        survey.add(index, scans[index])
    survey.rows.finish()
    return survey


def survey_of_codes(
    tables: Sequence[str],
    codes: Sequence[np.ndarray],
    pixels: Sequence[np.ndarray],
    writer: Writer = NOWHERE,
) -> tuple[Survey, np.ndarray]:
    """Chunks for these tables, and the class of each label."""
    items = [
        (table, "source", Chunk("train", 0, len(part)))
        for table, part in zip(tables, codes, strict=True)
    ]
    survey = survey_of(items, [*map(scan_of, codes, pixels)], writer)
    return survey, np.array([seen.label for seen in survey.seen], np.int32)


def work_of(
    assignment: Assignment, classes: int, writer: Writer = NOWHERE, full_scale: int = 65535
) -> list[ChunkWork]:
    """What is to be written of each chunk that has rows in a table."""
    counts = PartCounts(assignment, 1, classes)
    for block in assignment.blocks():
        counts.add(block)
    reader = StoredReader(writer)
    return [
        of.work(reader.of(of.rows), assignment.code_of, full_scale, known=False)
        for of in ToWrite(counts)
    ]


def parts_of(assignment: Assignment, classes: int, writer: Writer = NOWHERE) -> list[ChunkRows]:
    """Those of all chunks."""
    return [part for work in work_of(assignment, classes, writer) for part in work.parts]
