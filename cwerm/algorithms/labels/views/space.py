"""The space that labels are judged in: centred features, reduced by PCA, each of one length."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64

from cwerm.algorithms.inputs import blocks

__all__ = ["LENGTH", "fit_space", "to_space"]

DIMENSIONS = 256
LENGTH = 16.0  # of every vector, so that its entries are about 1
EXACT = 2048  # up to that many rows or columns, the decomposition is exact
PASSES = 4


def fit_space(
    features: Float[np.ndarray, "m d"], seed: int = 0
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "d kept"]]:
    """Mean and principal axes (columns) of the features, 256 at most, none without variance."""
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features.astype(np.float64) - mean
    scale = max(centred.max(), -centred.min()) or 1.0
    centred /= scale
    m, d = centred.shape
    if min(m, d) <= EXACT:
        gram = centred.T @ centred if d <= m else centred @ centred.T
        values, vectors = np.linalg.eigh(gram)
        order = np.argsort(-values)[:DIMENSIONS]
        values, vectors = values[order], vectors[:, order]
        keep = values > 1e-12 * max(values[0], 1e-300)
        keep[0] = True  # of constant features, too
        axes = vectors[:, keep] if d <= m else centred.T @ vectors[:, keep]
    else:  # subspace iteration (Halko et al. 2011)
        axes = np.random.default_rng(seed).standard_normal((d, DIMENSIONS + 16))
        for _ in range(PASSES):
            axes = np.linalg.qr(centred.T @ (centred @ axes))[0]
        reduced = centred @ axes
        values, turn = np.linalg.eigh(reduced.T @ reduced)
        axes = axes @ turn[:, np.argsort(-values)[:DIMENSIONS]]
    return mean, axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-300)


def to_space(
    features: Float[np.ndarray, "n d"],
    mean: Float64[np.ndarray, " d"],
    axes: Float64[np.ndarray, "d kept"],
) -> Float32[np.ndarray, "n kept"]:
    """The vectors of some features.

    In float64 up to the last step, so that a vector does not depend on the rows beside it.
    """
    vectors = np.empty((len(features), axes.shape[1]), np.float32)
    for rows in blocks(*features.shape):
        projected = (features[rows].astype(np.float64) - mean) @ axes
        length = np.linalg.norm(projected, axis=1, keepdims=True)
        vectors[rows] = LENGTH * projected / np.maximum(length, 1e-300)
    return vectors
