"""The tables beside the images: labels, digests and contents, a part at a time."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

import numpy as np
import pyarrow as pa

from cwerm.data.images import FULL_SCALES
from cwerm.stages import common
from cwerm.stages.ingest.assign import TABLES, AssignedRows
from cwerm.stages.ingest.known import CONTENTS
from cwerm.stages.labels_in_use import ROWS_A_PART
from cwerm.store.artifacts import File
from cwerm.store.beside import WriteBehind
from cwerm.store.writing import Writer

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

Columns = tuple[np.ndarray, ...]


class BesideImages:
    """Takes the rows in order, and writes the tables of what is told of them."""

    def __init__(self, writer: Writer, full_scale: int, tells: bool) -> None:
        """Contents are written where something ``tells`` an image before it is read."""
        self.writer, self.full_scale, self.tells = writer, full_scale, tells
        self._behind = WriteBehind()
        write = partial(_Parts, self._behind, writer)
        self._labels = {t: write(name, _labels, itertools.count()) for t, name in LABELS.items()}
        self._digests = {t: write(name, _digests, itertools.count()) for t, name in DIGESTS.items()}
        of_all = itertools.count()
        self._contents = {t: write(CONTENTS, _contents, of_all) for t in TABLES}

    def add(self, block: AssignedRows) -> None:
        """Take some more."""
        rows = block.rows
        for number, table in enumerate(TABLES):
            kept = np.flatnonzero(block.tables == number)
            if not len(kept):
                continue
            self._labels[table].add(block.codes[kept])
            self._digests[table].add(digests_of(rows.pixels[kept], self.full_scale))
            if self.tells:
                told = (rows.content, rows.pixels, rows.height, rows.width, rows.bytes)
                self._contents[table].add(*(column[kept] for column in told))

    def finish(self, tables: Iterable[str], **others: pa.Table) -> dict[str, list[File]]:
        """The tables that belong to these tables of images, and others of one part."""
        names = [name for name in TABLES if name in {*tables}]
        found = {LABELS[name]: self._labels[name].finish() for name in names}
        found |= {DIGESTS[name]: self._digests[name].finish() for name in names}
        found |= {CONTENTS: self._contents_of(names)} if self.tells else {}
        write = partial(self._behind.write, self.writer.write_part)
        found |= {name: [write(name, 0, table)] for name, table in others.items()}
        self._behind.finish()
        return {name: [file.result() for file in files] for name, files in found.items()}

    def _contents_of(self, names: list[str]) -> list[Future[File]]:
        """What lets later runs know these images again, in the order of the tables' names."""
        found: list[Future[File]] = []
        *before, last = (self._contents[name] for name in sorted(names))
        for parts, following in zip(before, [*before[1:], last], strict=True):
            if following.files:
                found += parts.finish()
            else:  # what is left of one table goes with the next
                found += parts.files
                following.prepend(parts)
        return found + last.finish()


class _Parts:
    """One table, of which no more than a part is held."""

    def __init__(
        self,
        behind: WriteBehind,
        writer: Writer,
        name: str,
        make: Callable[[str, int, Columns], pa.Table],
        numbers: Iterator[int],
    ) -> None:
        self.behind, self.writer = behind, writer
        self.name, self.make, self.numbers = name, make, numbers
        self.files: list[Future[File]] = []
        self._held: list[Columns] = []
        self._written = 0

    def add(self, *columns: np.ndarray) -> None:
        """Take some rows, and write a part where they are enough."""
        self._held.append(columns)
        while sum(len(some[0]) for some in self._held) >= ROWS_A_PART:
            whole = self._whole()
            self._write(tuple(column[:ROWS_A_PART] for column in whole))
            # a copy: a view would keep all of it in memory
            self._held = [tuple(column[ROWS_A_PART:].copy() for column in whole)]

    def prepend(self, other: _Parts) -> None:
        """Take over what the other, whose rows come first, has not written."""
        self._held = other._held + self._held

    def finish(self) -> list[Future[File]]:
        """Write what is left; of no rows, one part."""
        if any(len(some[0]) for some in self._held) or not self.files:
            self._write(self._whole())
        return self.files

    def _whole(self) -> Columns:
        return tuple(np.concatenate(column) for column in zip(*self._held, strict=True))

    def _write(self, columns: Columns) -> None:
        table = self.make(self.name, self._written, columns)
        number = next(self.numbers)
        self.files.append(self.behind.write(self.writer.write_part, self.name, number, table))
        self._written += len(table)


def _labels(name: str, start: int, columns: Columns) -> pa.Table:
    labels = columns[0] if columns else np.empty(0, np.int32)
    return common.table(name, np.arange(start, start + len(labels)), labels)


def _digests(name: str, start: int, columns: Columns) -> pa.Table:
    rows = columns[0] if columns else np.empty((0, 16), np.uint8)
    return common.table(name, np.arange(start, start + len(rows)), common.digests(rows))


def _contents(name: str, start: int, columns: Columns) -> pa.Table:
    del start
    content, pixels, *learned = columns
    return common.table(name, common.digests(content), common.digests(pixels), *learned)


def digests_of(pixels: np.ndarray, full_scale: int) -> np.ndarray:
    """What tells each image from any other as it is read, bytes [n, 16]."""
    # images of more than 8 bits are read by the data set's scale
    scale = b"" if full_scale == FULL_SCALES[-1] else str(full_scale).encode()
    told = pixels.tobytes()
    found = (
        hashlib.sha256(told[at : at + 16] + scale).digest()[:16] for at in range(0, len(told), 16)
    )
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
