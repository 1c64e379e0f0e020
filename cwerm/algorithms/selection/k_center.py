"""Greedy k-center: every next sample is the one farthest from those chosen so far.

Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach"
(ICLR 2018), algorithm 1; its covering radius is at most twice the best (Gonzalez, 1985).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from cwerm.algorithms.inputs import blocks
from cwerm.algorithms.selection import Needs, centered

NEEDS: Needs = "features"


def choose(
    count: int, values: Float[np.ndarray, "group d"], generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """`count` samples from the one nearest to the mean on; count * group * d operations."""
    rows = centered(values)
    norms = np.einsum("nd,nd->n", rows, rows)
    gaps = np.full(len(rows), np.inf, rows.dtype)  # squared distance to the nearest chosen one
    chosen = np.empty(count, np.int64)
    best = np.argmin(norms)
    for step in range(count):
        chosen[step] = best
        gaps = np.minimum(gaps, _squared_distances(rows, norms, best))
        gaps[best] = -np.inf  # never again, also where all others equal a chosen one
        best = np.argmax(gaps)
    return chosen


def _squared_distances(
    rows: Float[np.ndarray, "group d"], norms: Float[np.ndarray, "group"], center: np.integer
) -> Float[np.ndarray, "group"]:
    if rows.dtype == np.float32:  # the norms are alike enough to be expanded
        return norms + norms[center] - 2 * (rows @ rows[center])
    squared = np.empty_like(norms)
    for part in blocks(*rows.shape):
        differences = rows[part] - rows[center]
        squared[part] = np.einsum("nd,nd->n", differences, differences)
    return squared
