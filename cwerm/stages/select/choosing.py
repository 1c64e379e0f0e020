"""What is chosen of one class."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cwerm.algorithms import coreset as coresets
from cwerm.algorithms import selection
from cwerm.errors import blame

Found = tuple[np.ndarray, np.ndarray]  # ids, and their distances to the median of their class
Arrays = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Choice:
    """How many samples of each class a method chooses."""

    method: str
    counts: np.ndarray
    """int64 [classes]."""
    seed: int
    names: list[str]
    """Of the classes."""

    @property
    def needs(self) -> str:
        """What the method looks at."""
        return _loaded(self.method).NEEDS

    def positions(self, label: int, values: np.ndarray) -> np.ndarray:
        """Of the chosen samples, among all of a class, in any order."""
        if not len(values):
            return np.empty(0, dtype=np.int64)
        method, count = _loaded(self.method), int(self.counts[label])
        with blame("coreset", self.names):
            return coresets.choose_in_class(method, label, count, values, self.seed)


_loaded = functools.cache(selection.load_method)  # looks for modules, too long for every class


def look(
    choice: Choice | None, label: int, ids: np.ndarray, columns: Arrays, rows: Arrays
) -> Found:
    """What is chosen of a class, or all of it.

    Args:
        choice: how to choose.
        label: the class.
        ids: of its samples, int64 [n].
        columns: gives their features in blocks of columns, [n, some] each.
        rows: gives the same in blocks of rows, [some, d] each.
    """
    center = np.concatenate([coresets.median(block) for block in columns()])
    distances = np.concatenate([_distances(block, center) for block in rows()])
    if choice is None:
        return ids, distances
    values = distances if choice.needs == "distances" else np.concatenate([*rows()])
    chosen = choice.positions(label, values)
    return ids[chosen], distances[chosen]


def _distances(vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
    one = np.zeros(len(vectors), dtype=np.int64)
    return coresets.distances_to_centers(vectors.astype(np.float32), one, center[None])
