"""From the weights of the coreset to a weight for every sample (CW-ERM paper, equation 3).

A method maps the weights and labels of a batch's k nearest coreset samples, and the labels of the
batch, to weights; it is a plain function, so that workers can apply it to their shards. `normalise`
comes after, once, over the whole data set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer

from cwerm.algorithms.class_labels import as_labels
from cwerm.algorithms.inputs import Given, as_features, as_ids, as_weights, check_whole_number
from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.algorithms.networks.names import unknown_name
from cwerm.algorithms.spreading.agreement import search_others

__all__ = [
    "LEAVE_ONE_OUT",
    "METHODS",
    "BatchMethod",
    "batch_method",
    "broadcast_weights",
    "nearest",
    "normalise",
    "search",
    "vote",
]

BATCH_ROWS = 8192

BatchMethod = Callable[
    [
        Float[np.ndarray, "b k"],  # weights of the neighbours
        Integer[np.ndarray, "b k"],  # their labels
        Integer[np.ndarray, "b"],  # labels of the batch
    ],
    Float32[np.ndarray, "b"],
]


def nearest(
    neighbor_weights: Float[np.ndarray, "b k"],
    neighbor_labels: Integer[np.ndarray, "b k"],
    labels: Integer[np.ndarray, "b"],
) -> Float32[np.ndarray, "b"]:
    """Mean weight of the k nearest coreset samples; k = 1 is the paper's equation 3."""
    return neighbor_weights.mean(axis=1, dtype=np.float64).astype(np.float32)


def vote(
    neighbor_weights: Float[np.ndarray, "b k"],
    neighbor_labels: Integer[np.ndarray, "b k"],
    labels: Integer[np.ndarray, "b"],
) -> Float32[np.ndarray, "b"]:
    """Label-consistent vote: the share of the neighbours' weight that carries the sample's label.

    With no weight among the neighbours nothing is known of the sample, and it gets 0.
    """
    total = neighbor_weights.sum(axis=1, dtype=np.float64)
    agreeing = np.where(neighbor_labels == labels[:, None], neighbor_weights, 0)
    share = agreeing.sum(axis=1, dtype=np.float64) / np.where(total > 0, total, 1)
    return share.astype(np.float32)


METHODS: dict[str, BatchMethod] = {"nearest": nearest, "vote": vote}
# A sample of the coreset that vouches for itself would learn nothing of its label.
LEAVE_ONE_OUT = frozenset({"vote", "agreement"})


def batch_method(name: str) -> BatchMethod:
    """The method of that name; ValueError lists them all."""
    if name not in METHODS:
        raise unknown_name("broadcast method", name, METHODS)
    return METHODS[name]


def search(
    method: str,
    index: NeighborIndex,
    features: Float[np.ndarray, "b d"],
    ids: Integer[np.ndarray, "b"],
    neighbors: int,
) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
    """Distances and ids of the coreset samples that the method asks for each sample."""
    if method in LEAVE_ONE_OUT:
        return search_others(index, features, ids, neighbors)
    return index.search(features, neighbors)


def normalise(weights: Float[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    """Weights scaled to mean 1, so that the weighted loss is as large as the plain one.

    Raises ValueError if a weight is negative, NaN or infinite, or if all are zero.
    """
    # NaN fails the comparison, too
    valid = (weights >= 0) & (weights < np.inf)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(f"weight {row} is {weights[row]}; weights must be finite and not negative")
    mean = weights.mean(dtype=np.float64)
    if not mean > 0:
        raise ValueError(
            "all weights are zero, so they cannot be scaled to mean 1; train the weight net again"
        )
    return (weights.astype(np.float64) / mean).astype(np.float32)


def _check_settings(samples: int, neighbors: int, method: str, power: float) -> None:
    check_whole_number("neighbors", neighbors, 1)
    most = samples - (method in LEAVE_ONE_OUT)
    if neighbors > most:
        raise ValueError(
            f"neighbors must be from 1 to {most} with a coreset of {samples} samples, got {neighbors}"
        )
    if isinstance(power, str) or not 0 <= power < np.inf:
        raise ValueError(f"power must be a finite number of at least 0, got {power!r}")


def _in_range(weights: Float[np.ndarray, "m"]) -> Float32[np.ndarray, "m"]:
    """As float32; where that has not their size, all scaled by one power of two, as means cancel it."""
    exponent = int(np.frexp(weights.max())[1])
    return np.ldexp(weights, -exponent if abs(exponent) > 60 else 0).astype(np.float32)


def broadcast_weights(
    features: Given,
    labels: Given,
    coreset_ids: Given,
    coreset_weights: Given,
    method: str = "nearest",
    neighbors: int = 1,
    power: float = 1.0,
) -> tuple[Float32[np.ndarray, "n"], Int64[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Weights of all n samples (mean 1), ids and distances of their k nearest coreset samples.

    `features` [n, d] are real numbers of any type, `labels` [n] integers from 0, booleans or strings,
    `coreset_ids` [m] distinct rows of `features` with one weight each; arrays, lists, pandas objects or
    tensors. With `method="nearest"` a sample gets the mean weight of its k nearest coreset samples,
    which for k = 1 is the paper's equation 3; a coreset sample is its own nearest. With
    `method="vote"` it gets the share of its neighbours' weight that carries its own label, to the power
    `power`; a coreset sample does not count as its own neighbour. Raises ValueError in one line for unknown
    methods, arrays that do not fit together, features that are no rows of finite numbers up to 1e30,
    ids that repeat or are no rows, weights that are negative, NaN or infinite (naming the row), and
    weights that cannot be scaled to mean 1.
    """
    weigh = batch_method(method)
    vectors = as_features(features)
    codes = as_labels(labels, len(vectors)).codes
    chosen = as_ids(coreset_ids, len(vectors))
    given = as_weights(coreset_weights, len(chosen))
    _check_settings(len(chosen), neighbors, method, power)
    weight_of = np.zeros(len(vectors), np.float32)
    weight_of[chosen] = _in_range(given)
    index = NeighborIndex(vectors[chosen], chosen)
    weights, ids, distances = [], [], []
    for start in range(0, len(vectors), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        query_ids = np.arange(len(vectors))[rows]
        near, near_ids = search(method, index, vectors[rows], query_ids, neighbors)
        shares = weigh(weight_of[near_ids], codes[near_ids], codes[rows])
        weights.append(shares**power)
        ids.append(near_ids)
        distances.append(near)
    return normalise(np.concatenate(weights)), np.concatenate(ids), np.concatenate(distances)
