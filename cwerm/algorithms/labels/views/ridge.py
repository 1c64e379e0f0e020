"""A linear view: ridge regression on the targets, with each sample's own left out in closed form.

It is too stiff to learn single wrong labels. Where it finds no class likely (samples unlike all others, or
of no class at all) it says so, as its outputs need not sum to 1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from cwerm.algorithms.labels.views.space import LENGTH

__all__ = ["fit_ridge", "leverage", "predict"]

DECAY = 0.3  # a sample, with vectors whose entries are about 1


def _inputs(vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n inputs"]:
    return np.append(vectors.astype(np.float64), np.full((len(vectors), 1), LENGTH), axis=1)


def _inverse(inputs: Float64[np.ndarray, "m inputs"]) -> Float64[np.ndarray, "inputs inputs"]:
    return np.linalg.inv(inputs.T @ inputs + DECAY * len(inputs) * np.eye(inputs.shape[1]))


def fit_ridge(
    vectors: Float32[np.ndarray, "m d"],
    targets: Float32[np.ndarray, "m classes"],
    rows: Int64[np.ndarray, " r"],
) -> Float64[np.ndarray, "inputs classes"]:
    """Coefficients by some of the samples."""
    inputs = _inputs(vectors[rows])
    return _inverse(inputs) @ (inputs.T @ targets[rows])


def leverage(
    vectors: Float32[np.ndarray, "n d"], among: Float32[np.ndarray, "m d"] | None = None
) -> Float64[np.ndarray, " n"]:
    """How much of each sample's own target is in its output: the diagonal of the hat matrix.

    ``among`` are the samples that were fitted, where these are only some of them.
    """
    inputs = _inputs(vectors)
    whole = inputs if among is None else _inputs(among)
    return ((inputs @ _inverse(whole)) * inputs).sum(axis=1)


def predict(
    coefficients: Float64[np.ndarray, "inputs classes"], vectors: Float32[np.ndarray, "n d"]
) -> Float64[np.ndarray, "n classes"]:
    """Outputs for any vectors: about the probability of each class, but not of sum 1."""
    return _inputs(vectors) @ coefficients
