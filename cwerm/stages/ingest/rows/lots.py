"""Rows drawn by lots: of each class those with the smallest, and all copies of their images.

Copies have one lot, so rows are shuffled to buckets, each a range of lots, and every bucket is looked at
alone, the smallest lots first: how many rows of a class came before says which of its rows are drawn. All
rows of one image are in memory together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from cwerm.stages import common
from cwerm.stages.ingest.rows import held
from cwerm.stages.ingest.rows.bits import Bits
from cwerm.stages.ingest.rows.training import Training
from cwerm.store.artifacts import File
from cwerm.store.beside import WriteBehind, read_ahead
from cwerm.store.writing import Writer

PIECE_ROWS = 2**14  # of very many rows, buckets are larger, so that pieces are not smaller

# lots uint64, classes int32, rows int64; [n] each
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw(training: Training, counts: np.ndarray, odd: int, split: str) -> Bits:
    """Take so many rows of each class for a split, and say which.

    Args:
        training: what there is to draw from, and what the drawn rows are taken from.
        counts: of each class, int64 [classes], fewer than it has.
        odd: makes lots of digests.
        split: a name for the pieces of the shuffle.
    """
    sizes = training.sizes
    classes = len(sizes)
    shuffle = Shuffle(training.held.writer, int(sizes.sum()), split)
    for rows, codes, pixels in training.blocks():
        lots = pixels[:, :8].copy().view(np.uint64)[:, 0] * np.uint64(odd)  # modulo 2^64
        shuffle.put((lots, codes, rows))
    shuffle.finish()
    chosen, drawn = Bits(training.held.total), Bits(training.held.total)
    seen, taken = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for lots, codes, rows in shuffle.buckets():
        order = np.lexsort((lots, codes))
        of_class = np.bincount(codes, minlength=classes)
        before = seen - (np.cumsum(of_class) - of_class)
        place = np.arange(len(rows)) + np.repeat(before, of_class)  # within the class
        is_chosen = place < np.repeat(counts, of_class)
        is_drawn = is_chosen | np.isin(lots[order], lots[order[is_chosen]])
        chosen.mark(rows[order[is_chosen]])
        drawn.mark(rows[order[is_drawn]])
        taken += np.bincount(codes[order[is_drawn]], minlength=classes)
        seen += of_class
        if (seen >= counts).all():
            break  # what has larger lots is neither chosen nor a copy of what is
    shuffle.forget()
    is_left = taken < sizes
    if not is_left[sizes > 0].all():
        # of a class of nothing but copies some stay
        for rows, codes, _ in training.blocks():
            mine = rows[~is_left[codes]]
            drawn.unmark(mine[~chosen.at(mine)])
    training.sizes = sizes - np.where(is_left, taken, counts)
    training.taken.add(drawn)
    return drawn


class Shuffle:
    """Rows by ranges of their lots: one range, in memory, where they are few."""

    def __init__(self, writer: Writer, total: int, name: str) -> None:
        self.writer, self.name = writer, name
        self.in_memory = total <= held.HELD_ROWS
        self.most = max(held.HELD_ROWS, math.isqrt(total * PIECE_ROWS))
        self.num_buckets = 1 if self.in_memory else math.ceil(total / self.most)
        self._pieces: list[list[File]] = [[] for _ in range(self.num_buckets)]
        self._open: list[Columns] = []
        self._groups = 0

    def put(self, columns: Columns) -> None:
        """Take some rows, which come after those before."""
        self._open.append(columns)
        if not self.in_memory and sum(len(rows) for _, _, rows in self._open) >= self.most:
            self._cut()

    def finish(self) -> None:
        """Write what is left."""
        if not self.in_memory and self._open:
            self._cut()

    def buckets(self) -> Iterator[Columns]:
        """The rows of each range, in their order; the smallest lots first."""
        if self.in_memory:
            yield _joined(self._open)
            return
        for pieces in self._pieces:
            if pieces:
                yield _joined(list(read_ahead(self._read, pieces)))

    def forget(self) -> None:
        """Remove what was written."""
        background = WriteBehind()
        for file in (file for pieces in self._pieces for file in pieces):
            background.write(self.writer.delete_unpublished, file)
        background.finish()

    def _cut(self) -> None:
        """Write a piece of these rows for each bucket."""
        lots, codes, rows = _joined(self._open)
        self._open = []
        bucket = (lots >> np.uint64(32)) * np.uint64(self.num_buckets) >> np.uint64(32)
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(self.num_buckets + 1, dtype=np.uint64))
        background, written = WriteBehind(), []
        for number in range(self.num_buckets):
            mine = order[ends[number] : ends[number + 1]]
            if len(mine):
                piece = lots[mine], codes[mine], rows[mine]
                written.append((number, background.write(self._write, number, piece)))
        background.finish()
        for number, file in written:
            self._pieces[number].append(file.result())
        self._groups += 1

    def _write(self, bucket: int, piece: Columns) -> File:
        name = f"{self.name}-lots-{bucket:05d}"
        table = common.table("lots", *piece)
        return self.writer.write_unpublished("lots", self._groups, table, name=name)

    def _read(self, file: File) -> Columns:
        table = self.writer.read_unpublished(file)
        lots, codes, rows = (common.column(table, name) for name in ("lot", "label", "row"))
        return lots, codes, rows


def _joined(pieces: list[Columns]) -> Columns:
    lots, codes, rows = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return lots, codes, rows
