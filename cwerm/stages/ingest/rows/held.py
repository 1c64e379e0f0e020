"""The rows of a scan: where they are few they stay in memory, else they lie in the storage in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cwerm.stages import common, earlier
from cwerm.store.artifacts import File
from cwerm.store.beside import WriteBehind, read_ahead
from cwerm.store.writing import Writer

# up to which all are in memory: a request to a bucket takes longer than a small scan
HELD_ROWS = 2**20
BLOCK_ROWS = 2**16  # of neighbouring chunks, which lie in one object

_DIGESTS = ("digest", "pixels", "content")


class Rows(NamedTuple):
    """What was learned of rows that follow each other, [n] each."""

    label: np.ndarray
    """int32: the number of the label in the survey, -1 where the row is not readable."""
    digest: np.ndarray
    """Of all that each row holds, bytes [n, 16]."""
    pixels: np.ndarray
    """Of its image alone, bytes [n, 16]."""
    height: np.ndarray
    """int32."""
    width: np.ndarray
    """int32."""
    bytes: np.ndarray
    """int64, of the image as it lies in the source."""
    largest: np.ndarray
    """int32: the largest value of an image of more than 8 bits, else -1."""
    content: np.ndarray
    """What tells the image from any other before it is read, bytes [n, 16]; zeros where nothing does."""
    known: np.ndarray
    """int64: which row of earlier runs it is, -1 where it is none."""

    def cut(self, start: int, stop: int) -> Rows:
        """Some that follow each other."""
        return Rows(*(column[start:stop] for column in self))


@dataclass(frozen=True)
class Stored:
    """Where in the storage some rows lie."""

    file: File
    start: int
    """Within the file."""
    stop: int


class HeldRows:
    """The rows of all chunks, put one chunk after the other in any order."""

    def __init__(self, writer: Writer, sizes: Sequence[int]) -> None:
        """The sizes are those of the chunks, in their order."""
        self.writer = writer
        self.ends = np.cumsum([0, *sizes])
        """Of the chunks, among all rows, int64 [chunks + 1]."""
        self.in_memory = self.total <= HELD_ROWS
        place = self.ends[:-1] // BLOCK_ROWS
        self._firsts = np.append(
            np.flatnonzero(np.diff(place, prepend=-1)), len(place)
        )  # chunk where each block begins
        self._open: dict[int, dict[int, Rows]] = {}
        self._blocks: dict[int, Rows | Future[File]] = {}
        self._background = None if self.in_memory else WriteBehind()

    @property
    def total(self) -> int:
        """The number of rows."""
        return int(self.ends[-1])

    def put(self, chunk: int, rows: Rows) -> None:
        """Take the rows of a chunk; a block is written as soon as all of its chunks are here."""
        block = self._block_of(chunk)
        held = self._open.setdefault(block, {})
        held[chunk] = rows
        if len(held) < self._firsts[block + 1] - self._firsts[block]:
            return
        del self._open[block]
        columns = zip(*(held[chunk] for chunk in sorted(held)), strict=True)
        whole = Rows(*(np.concatenate(column) for column in columns))
        if self._background:
            self._blocks[block] = self._background.write(self._write, block, whole)
        else:
            self._blocks[block] = whole

    def finish(self) -> None:
        """Wait until all rows are where they are read from."""
        if self._background:
            self._background.finish()
        assert len(self._blocks) == len(self._firsts) - 1, "rows of a chunk are missing"

    def keys(self, stop: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Blocks of the rows before ``stop`` in order: the first row, the labels and the images' digests."""
        columns = ["label", "pixels"]
        for start, rows in self._read(int(np.searchsorted(self._starts, stop)), columns):
            yield start, rows.label[: stop - start], rows.pixels[: stop - start]

    def every(self) -> Iterator[tuple[range, Rows]]:
        """All blocks in order: their chunks, and their rows."""
        for block, (_, rows) in enumerate(self._read(len(self._blocks))):
            yield range(int(self._firsts[block]), int(self._firsts[block + 1])), rows

    def of(self, chunk: int) -> Rows | Stored:
        """The rows of a chunk, or where a worker finds them."""
        block = self._block_of(chunk)
        held, first = self._blocks[block], self._starts[block]
        start, stop = (self.ends[chunk : chunk + 2] - first).tolist()
        if isinstance(held, Rows):
            return held.cut(start, stop)
        return Stored(held.result(), start, stop)

    def forget(self) -> None:
        """Remove what was written."""
        if not self.in_memory:
            background = WriteBehind()
            for held in self._blocks.values():
                assert isinstance(held, Future)
                background.write(self.writer.delete_unpublished, held.result())
            background.finish()

    @property
    def _starts(self) -> np.ndarray:
        """The first row of each block."""
        return self.ends[self._firsts[:-1]]

    def _block_of(self, chunk: int) -> int:
        return int(np.searchsorted(self._firsts, chunk, side="right")) - 1

    def _read(self, blocks: int, columns: list[str] | None = None) -> Iterator[tuple[int, Rows]]:
        def read(block: int) -> tuple[int, Rows]:
            held = self._blocks[block]
            if isinstance(held, Future):
                held = read_rows(self.writer, held.result(), columns)
            return int(self.ends[self._firsts[block]]), held

        return map(read, range(blocks)) if self.in_memory else read_ahead(read, range(blocks))

    def _write(self, block: int, rows: Rows) -> File:
        columns = [
            common.digests(column) if name in _DIGESTS else column
            for name, column in rows._asdict().items()
        ]
        return self.writer.write_unpublished("scanned", block, common.table("scanned", *columns))


class StoredReader:
    """Rows for a worker, whose chunks follow each other: it reads a block once."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._last: tuple[File, Rows] | None = None

    def of(self, place: Rows | Stored) -> Rows:
        """These rows."""
        if isinstance(place, Rows):
            return place
        if self._last is None or self._last[0] != place.file:
            self._last = place.file, read_rows(self.writer, place.file)
        return self._last[1].cut(place.start, place.stop)


def read_rows(writer: Writer, file: File, columns: list[str] | None = None) -> Rows:
    """The rows of a block; columns that are not asked for are empty."""
    table = writer.read_unpublished(file, columns)
    return Rows(*(_column(table, name) for name in Rows._fields))


def _column(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.empty(0)
    if name in _DIGESTS:
        return earlier.as_numbers(table.column(name)).view(np.uint8).reshape(-1, 16)
    return common.column(table, name)
