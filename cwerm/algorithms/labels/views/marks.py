"""A number for each row of features, that tells rows apart by their content alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt64

from cwerm.algorithms.inputs import blocks

__all__ = ["row_marks"]


def row_marks(rows: Float[np.ndarray, "n d"]) -> UInt64[np.ndarray, " n"]:
    """64 bits a row: equal for equal rows, and for others with a probability of about 10^-19."""
    random = np.random.default_rng(0)
    factors = random.integers(1, 1 << 63, rows.shape[1], np.uint64) | np.uint64(1)
    marks = np.empty(len(rows), np.uint64)
    for block in blocks(*rows.shape):
        words = np.ascontiguousarray(rows[block], np.float64).view(np.uint64)
        words = (words ^ (words >> np.uint64(29))) * factors
        words ^= words >> np.uint64(32)
        marks[block] = (words * factors).sum(axis=1, dtype=np.uint64)
    return marks
