"""What the first pass learns of all chunks together; what it learns of single rows goes to `HeldRows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cwerm.data.labels import Label
from cwerm.stages.ingest.rows.held import HeldRows, Rows
from cwerm.stages.ingest.rows.tally import Tally
from cwerm.stages.ingest.scan import Scan, parts_of
from cwerm.stages.ingest.sources import WorkItem


@dataclass
class SeenLabel:
    """A label, and where it was seen first."""

    table: str
    role: str
    split: str
    source: int
    """Of several sources, the number of that which it is from."""
    label: Label
    chunk: int
    place: int
    """Among the labels of the chunk."""
    readable: int = 0
    """Rows that have it."""


class Survey:
    """Sums over all chunks, each added once, in any order."""

    def __init__(self, items: Sequence[WorkItem], rows: HeldRows) -> None:
        self.items, self.rows = items, rows
        self.lengths: list[tuple[int, ...]] = [()] * len(items)
        """Of each chunk, the rows of each part that it becomes."""
        self.seen: list[SeenLabel] = []
        """The labels by their number."""
        self.largest = Tally()
        """Largest values of the images of more than 8 bits."""
        self.num_known = 0
        """Images that an earlier run has read."""
        self.tells = False
        """Whether something tells an image from others before it is read."""
        self._numbers: dict[tuple[str, str, str, int], dict[Label, int]] = {}
        self._rejects: dict[int, list[tuple[str, str]]] = {}
        self._short_sides = Tally()
        self._shapes: set[tuple[int, int]] = set()  # two at most

    def add(self, chunk: int, scan: Scan) -> None:
        """Count a chunk, and put its rows to the others."""
        item = self.items[chunk][2]
        self.lengths[chunk] = tuple(parts_of(item, scan.sizes))
        if scan.rejects:
            self._rejects[chunk] = scan.rejects
        numbers = self._numbered(chunk, scan)
        height, width = scan.sides
        self._short_sides.add(np.minimum(height, width))
        if len(height) and len(self._shapes) < 2:
            pairs = np.unique(np.stack([height, width]), axis=1)[:, :2]
            self._shapes |= {(int(h), int(w)) for h, w in pairs.T}
        if len(scan.deep):
            self.largest.add(scan.deep)
        content = np.zeros((item.size, 16), np.uint8) if scan.content is None else scan.content
        known = np.full(item.size, -1) if scan.known is None else scan.known
        self.num_known += int((known >= 0).sum())
        # images of more than 8 bits are not known again: they may lie in the store with another scale
        content = np.where(scan.largest[:, None] < 0, content, 0).astype(np.uint8)
        self.tells = self.tells or bool(content.any())
        label = np.where(scan.readable, numbers[scan.label_of], -1).astype(np.int32)
        learned = (scan.digests, scan.pixels, scan.height, scan.width, scan.sizes, scan.largest)
        self.rows.put(chunk, Rows(label, *learned, content, known))

    def _numbered(self, chunk: int, scan: Scan) -> np.ndarray:
        """The number of each label of a chunk, int32."""
        table, role, item = self.items[chunk]
        group = (table, role, item.split, item.source)
        known = self._numbers.setdefault(group, {})
        counts = np.bincount(scan.label_of[scan.readable], minlength=len(scan.labels)).tolist()
        numbers = []
        for place, (label, count) in enumerate(zip(scan.labels, counts, strict=True)):
            number = known.setdefault(label, len(self.seen))
            if number == len(self.seen):
                self.seen.append(SeenLabel(*group, label, chunk, place))
            seen = self.seen[number]
            seen.readable += count
            if chunk < seen.chunk:
                seen.chunk, seen.place = chunk, place
            numbers.append(number)
        return np.array(numbers, np.int32)

    @property
    def rejects(self) -> list[tuple[str, str]]:
        """Path and reason of each row that is not readable, in the order of the source."""
        return [entry for chunk in sorted(self._rejects) for entry in self._rejects[chunk]]

    @property
    def median_short_side(self) -> int:
        """Of the readable images, pixels."""
        return int(self._short_sides.median())

    @property
    def common_size(self) -> list[int] | None:
        """Height and width where all readable images have the same."""
        return list(*self._shapes) if len(self._shapes) == 1 else None

    @property
    def training_rows(self) -> int:
        """Rows of the chunks of training images, which come first."""
        is_training = [table == "images" for table, _, _ in self.items]
        count = sum(is_training)
        assert all(is_training[:count]), "training images come first"
        return int(self.rows.ends[count])

    def class_sizes(self, code_of: np.ndarray, classes: int) -> np.ndarray:
        """Readable training images of each class, int64 [classes]."""
        sizes = np.zeros(classes, np.int64)
        for seen, code in zip(self.seen, code_of, strict=True):
            if seen.table == "images":
                sizes[code] += seen.readable
        return sizes
