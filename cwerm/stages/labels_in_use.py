"""The labels in use, some rows at a time: nothing here holds a row of every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cwerm.stages import common
from cwerm.store.artifacts import Artifact, ArtifactStore

ROWS_A_PART = 1 << 20


class LabelRows(NamedTuple):
    """Rows of the table, whose ids are contiguous; [n] each."""

    start: int
    """The first id."""
    labels: np.ndarray
    """int32."""
    right: np.ndarray
    """int32: as the labels would be without the noise that was made."""
    known: np.ndarray
    """bool: a person has said that they are right."""
    removed: np.ndarray
    """bool: a person wants the images left out."""

    def cut(self, start: int, stop: int) -> LabelRows:
        """Those with ids from ``start`` to ``stop``."""
        rows = slice(start - self.start, stop - self.start)
        return LabelRows(start, *(column[rows] for column in self[1:]))

    def usable(self, left_out: np.ndarray) -> np.ndarray:
        """Which of them are not among these ids, int64 ascending; bool [n]."""
        first, last = np.searchsorted(left_out, [self.start, self.start + len(self.labels)])
        found = np.ones(len(self.labels), dtype=bool)
        found[left_out[first:last] - self.start] = False
        return found


class LabelReader:
    """Ranges of rows, of which a worker asks for one after the other."""

    def __init__(self, store: ArtifactStore, labels: Artifact) -> None:
        self.store, self.artifact = store, labels
        self.ends = np.cumsum([part.rows for part in labels.tables["labels"]])
        self._last: tuple[int, LabelRows] | None = None

    def rows(self, start: int, stop: int) -> LabelRows:
        """Those with ids from ``start`` to ``stop``."""
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right").tolist()
        found = []
        for part in range(first, last + 1):
            whole = self._part(part)
            found.append(whole.cut(max(start, whole.start), min(stop, int(self.ends[part]))))
        if len(found) == 1:
            return found[0]
        columns = zip(*(rows[1:] for rows in found), strict=True)
        return LabelRows(start, *(np.concatenate(column) for column in columns))

    def every(self) -> Iterator[LabelRows]:
        """All rows, a part at a time."""
        return map(self._part, range(len(self.ends)))

    def _part(self, part: int) -> LabelRows:
        if self._last is None or self._last[0] != part:
            columns = ["label", "clean_label", "known", "removed"]
            hold = len(self.ends) == 1  # a pass over many reads each once
            table: Any = self.store.read_part(self.artifact, "labels", part, columns, hold=hold)
            label, known, removed = (
                common.column(table, name) for name in columns if "_" not in name
            )
            noisy = not table.column("clean_label").null_count
            right = common.column(table, "clean_label") if noisy else label
            start = int(self.ends[part]) - len(label)
            self._last = part, LabelRows(start, label, right, known, removed)
        return self._last[1]


def ids_at(
    rows: Iterable[tuple[int, np.ndarray, np.ndarray]],
    sizes: np.ndarray,
    places: Sequence[np.ndarray],
) -> np.ndarray:
    """Ids of the samples at these places of their classes, int64, ascending.

    Args:
        rows: pieces of the samples in the order of their ids, each its first id, the classes [n], and which
            of them count, bool [n].
        sizes: of each class, samples that count, [classes].
        places: of each class, positions among those, in any order.
    """
    seen = np.cumsum(sizes) - sizes  # where each class begins, if all were sorted by class
    wanted = np.sort(np.concatenate([first + at for first, at in zip(seen, places, strict=True)]))
    found = [np.empty(0, np.int64)]
    for start, labels, counts in rows:
        kept = np.flatnonzero(counts)
        order = np.argsort(labels[kept], kind="stable")
        of_class = np.bincount(labels[kept], minlength=len(sizes))
        shift = seen - (np.cumsum(of_class) - of_class)
        place = np.repeat(shift, of_class) + np.arange(len(kept))
        near = wanted[np.minimum(np.searchsorted(wanted, place), len(wanted) - 1)]
        found.append(start + np.sort(kept[order[near == place]]))
        seen += of_class
    return np.concatenate(found)
