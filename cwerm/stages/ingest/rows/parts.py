"""The ids of each part's rows: counted by the driver, and given by the workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cwerm.stages.ingest.assign import (
    TABLES,
    AssignedRows,
    Assignment,
    ChunkRows,
    codes_of,
    tables_of,
)
from cwerm.stages.ingest.rows.held import Rows, Stored, StoredReader
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.ingest.write import ChunkWork, Written
from cwerm.store.artifacts import File
from cwerm.store.beside import Later
from cwerm.store.writing import Writer


class PartCounts:
    """How many rows each part has of each table, and training images of each source and class."""

    def __init__(self, assignment: Assignment, sources: int, classes: int) -> None:
        self.assignment = assignment
        lengths = assignment.survey.lengths
        self.first_part = np.cumsum([0, *map(len, lengths)])
        """Of each chunk, int64 [chunks + 1]."""
        self._ends = np.cumsum([0, *(rows for of_chunk in lengths for rows in of_chunk)])
        self.kept = np.zeros((len(TABLES), int(self.first_part[-1])), np.int64)
        self.images = np.zeros((sources, classes), np.int64)

    def add(self, block: AssignedRows) -> None:
        """Count some rows; blocks may come in any order."""
        chunks = slice(block.chunks.start, block.chunks.stop)
        first, last = self.first_part[[chunks.start, chunks.stop]].tolist()
        edges = self._ends[first : last + 1] - self._ends[first]
        for number in range(len(TABLES)):
            ends = np.cumsum(np.append(0, block.tables == number))
            self.kept[number, first:last] = np.diff(ends[edges])
        survey = self.assignment.survey
        of_chunk = np.array([chunk.source for _, _, chunk in survey.items[chunks]])
        source = np.repeat(of_chunk, np.diff(survey.rows.ends[chunks.start : chunks.stop + 1]))
        mine = block.tables == TABLES.index("images")
        place = source[mine] * self.images.shape[1] + block.codes[mine]
        found = np.bincount(place, minlength=self.images.size)
        self.images += found.reshape(self.images.shape)

    @property
    def first_ids(self) -> np.ndarray:
        """Of each table and part the id of its first row, int64 [tables, parts + 1].

        Ids are contiguous from 0 in each table, in the order of the source.
        """
        return np.cumsum(np.pad(self.kept, ((0, 0), (1, 0))), axis=1)

    def check(self, tables: Mapping[str, Mapping[int, File]]) -> None:
        """Every id is given once, from 0 without a hole, and every part holds what was given to it."""
        for name, kept in zip(TABLES, self.kept, strict=True):
            written = {index: file.rows for index, file in tables.get(name, {}).items()}
            parts = np.flatnonzero(kept)
            assert written == dict(zip(parts.tolist(), kept[parts].tolist(), strict=True)), name


@dataclass(frozen=True)
class Assigned:
    """One chunk, and what a worker needs to give its rows their ids."""

    item: WorkItem
    rows: Rows | Stored
    lengths: tuple[int, ...]
    """Of its parts."""
    first_part: int
    first_ids: np.ndarray
    """Of each table and part, int64 [tables, parts + 1]."""
    marks: np.ndarray
    """As of `Assignment.marks`, eight rows a byte."""
    drawn: tuple[str, ...]
    """The drawn tables."""

    def work(self, rows: Rows, code_of: np.ndarray, full_scale: int, known: bool) -> ChunkWork:
        """What there is to write: these are the rows of the chunk."""
        size = len(rows.label)
        own = TABLES.index(self.item[0])
        marks = np.unpackbits(self.marks, axis=1, count=size).astype(bool)
        tables = tables_of(own, rows.label, [*marks], self.drawn)
        codes = codes_of(code_of, rows.label)
        parts, start = [], 0
        for number, length in enumerate(self.lengths):
            here = slice(start, start := start + length)
            ids = {}
            for name in sorted(TABLES):
                first, after = self.first_ids[TABLES.index(name), number : number + 2].tolist()
                mask = tables[here] == TABLES.index(name)
                assert mask.sum() == after - first, f"ids of {name} have holes"
                if mask.any():
                    ids[name] = np.where(mask, first + np.cumsum(mask) - 1, -1)
            index = self.first_part + number
            parts.append(ChunkRows(index, ids, codes[here], rows.digest[here], full_scale))
        return ChunkWork(self.item, parts, rows.known if known else None)


class ToWrite(Sequence[Assigned]):
    """The chunks that have rows in a table, each made when a worker asks for it."""

    def __init__(self, counts: PartCounts) -> None:
        self.assignment, self.first_part = counts.assignment, counts.first_part
        self._first_ids = counts.first_ids
        before = np.cumsum(np.append(0, counts.kept.sum(axis=0)))
        self._chunks = np.flatnonzero(np.diff(before[self.first_part]))

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, number: Any) -> Any:
        chunk, survey = int(self._chunks[number]), self.assignment.survey
        first, last = self.first_part[chunk : chunk + 2].tolist()
        marks = self.assignment.marks(*survey.rows.ends[chunk : chunk + 2].tolist())
        return Assigned(
            survey.items[chunk],
            survey.rows.of(chunk),
            survey.lengths[chunk],
            first,
            self._first_ids[:, first : last + 1],
            np.packbits(np.stack(marks), axis=1),
            tuple(self.assignment.drawn),
        )


def part_writer(
    make: Callable[[], Callable[[ChunkWork], Later[Written]]],
    writer: Writer,
    code_of: np.ndarray,
    full_scale: int,
    known: bool,
) -> Callable[[Assigned], Later[Written]]:
    """What gives the rows of a chunk their ids and writes them.

    Args:
        make: makes what writes.
        writer: of the artifact.
        code_of: the class of each label, int32.
        full_scale: the largest value of images of more than 8 bits.
        known: whether rows may be those of earlier runs.
    """
    write, reader = make(), StoredReader(writer)
    return lambda of: write(of.work(reader.of(of.rows), code_of, full_scale, known))
