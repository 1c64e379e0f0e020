"""k-means prototypes: the sample nearest to each of as many k-means centres as are asked for.

Source: Lloyd's algorithm (1982), by FAISS; the prototypes of Sorscher et al., "Beyond neural
scaling laws" (NeurIPS 2022), are chosen by the same distance to k-means centres.
"""

from __future__ import annotations

import faiss
import numpy as np
from jaxtyping import Float, Integer

from cwerm.algorithms.selection import Needs, centered

NEEDS: Needs = "features"
ITERATIONS = 20


def choose(
    count: int, values: Float[np.ndarray, "group d"], generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """`count` distinct samples; a centre whose nearest one is taken gets the next."""
    rows = centered(values).astype(np.float32, copy=False)  # FAISS has no other type
    means = faiss.Kmeans(
        rows.shape[1],
        count,
        niter=ITERATIONS,
        seed=int(generator.integers(2**31)),
        # no warnings about small groups, and no subsampling of large ones
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    means.train(rows)
    assert means.centroids is not None
    # ||row - centre||^2 less what all rows share
    norms = np.einsum("nd,nd->n", rows, rows)
    chosen = np.empty(count, np.int64)
    for cluster, center in enumerate(means.centroids):
        chosen[cluster] = best = np.argmin(norms - 2 * (rows @ center))
        norms[best] = np.inf
    return chosen
