"""Sums of many arrays that do not depend on their order or on how they are grouped."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

__all__ = ["ExactSums"]


class ExactSums:
    """Adds arrays of one shape, and loses no digit: as `math.fsum` of all, element by element.

    What is held are a few arrays whose sum is exact; each addition keeps its rounding error in the next one
    (Knuth's TwoSum; Shewchuk, "Adaptive precision floating-point arithmetic", 1997).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._parts: list[np.ndarray] = []

    def add(self, values: Float64[np.ndarray, "..."]) -> None:
        """Add finite numbers whose sum is no overflow."""
        rest = values.astype(np.float64)
        for number, part in enumerate(self._parts):
            total = part + rest
            other = total - part
            rest = (part - (total - other)) + (rest - other)
            self._parts[number] = total
        if rest.any():
            self._parts.append(rest)

    def total(self) -> Float64[np.ndarray, "..."]:
        """The sums, each rounded once."""
        found = np.zeros(self.shape)
        for place in np.ndindex(self.shape):
            found[place] = math.fsum(part[place] for part in self._parts)
        return found
