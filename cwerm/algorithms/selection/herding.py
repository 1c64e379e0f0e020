"""Herding: samples added one by one so that their mean stays nearest to the mean of all.

Source: Welling, "Herding dynamical weights to learn" (ICML 2009); Chen et al., "Super-samples from
kernel herding" (UAI 2010); the greedy form of Rebuffi et al., "iCaRL" (CVPR 2017), algorithm 4,
here on features that are not normalised.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from cwerm.algorithms.selection import Needs, centered

NEEDS: Needs = "features"


def choose(
    count: int, values: Float[np.ndarray, "group d"], generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """`count` samples in greedy order; of equals, the first. Takes count * group * d operations."""
    rows = centered(values)
    # ||total + row||^2 less what all rows share
    norms = np.einsum("nd,nd->n", rows, rows)
    total = np.zeros(rows.shape[1])
    chosen = np.empty(count, np.int64)
    for step in range(count):
        chosen[step] = best = np.argmin(norms + rows @ (2 * total).astype(rows.dtype))
        total += rows[best]
        norms[best] = np.inf
    return chosen
