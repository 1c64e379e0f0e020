"""How often whole numbers occur."""

from __future__ import annotations

import numpy as np


class Tally:
    """Counts of values, of which few are different."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, values: np.ndarray) -> None:
        """Count these, integers [n]."""
        found, counts = np.unique(values, return_counts=True)
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + count

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self._counts.values())

    @property
    def largest(self) -> int:
        """The largest value; -1 where there is none."""
        return max(self._counts, default=-1)

    def up_to(self, value: int) -> Tally:
        """Those that are not larger."""
        found = Tally()
        found._counts = {each: n for each, n in self._counts.items() if each <= value}
        return found

    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        values = sorted(self._counts)
        ends = np.cumsum([self._counts[value] for value in values])
        middle = [(self.total - 1) // 2, self.total // 2]
        low, high = (values[place] for place in np.searchsorted(ends, middle, side="right"))
        return (low + high) / 2
