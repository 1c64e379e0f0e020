"""Features on a plane, so that neighbours stay neighbours: t-SNE."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from cwerm.algorithms.inputs import Given, as_features

__all__ = ["on_a_plane"]

COMPONENTS = 50  # kept of the features before, as van der Maaten & Hinton (2008) do
PERPLEXITY = 30.0
STEPS = 500


def on_a_plane(features: Given) -> Float32[np.ndarray, "n 2"]:
    """A place for each row of features [n, d], n from 2 on: by directions, cut to 50 components, by t-SNE.

    The same rows give the same places. Raises ValueError for NaN or infinite features.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows = as_features(features, "features").astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    if np.ptp(rows, axis=0).max() == 0:
        return np.zeros((len(rows), 2), np.float32)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    with threadpool_limits(1):  # sums in one order
        kept: Float[np.ndarray, "n k"] = PCA(
            min(COMPONENTS, *rows.shape), random_state=0
        ).fit_transform(rows)
        if min(kept.shape) < 2:
            return np.pad(kept[:, :1], ((0, 0), (0, 1))).astype(np.float32)
        made = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=STEPS)
        places = made.fit_transform(kept.astype(np.float32))
    return places.astype(np.float32)
