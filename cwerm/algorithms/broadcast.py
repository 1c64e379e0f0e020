"""From the weights of the coreset to a weight for every sample (CW-ERM paper, equation 3).

A method maps the weights and labels of a batch's k nearest coreset samples, and the labels of the
batch, to weights; it is a plain function, so that workers can apply it to their shards. `normalise`
comes after, once, over the whole data set.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer

from cwerm.algorithms.agreement import search_others
from cwerm.algorithms.medians import check_finite
from cwerm.algorithms.names import unknown_name
from cwerm.algorithms.neighbors import NeighborIndex

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


def _check(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, "_"],
    coreset_ids: Integer[np.ndarray, "_"],
    coreset_weights: Float[np.ndarray, "_"],
    neighbors: int,
    method: str,
) -> None:
    n, m = len(features), len(coreset_ids)
    most = m - (method in LEAVE_ONE_OUT)
    if len(labels) != n:
        raise ValueError(f"{n} features but {len(labels)} labels; give one label a feature row")
    if len(coreset_weights) != m:
        raise ValueError(
            f"{m} coreset ids but {len(coreset_weights)} weights; give one weight an id"
        )
    if not 1 <= neighbors <= most:
        raise ValueError(
            f"neighbors must be from 1 to {most} with a coreset of {m} samples, got {neighbors}"
        )
    if coreset_ids.min() < 0 or coreset_ids.max() >= n:
        raise ValueError(f"coreset ids must be row numbers from 0 to {n - 1}")
    check_finite(features)


def broadcast_weights(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, "_"],
    coreset_ids: Integer[np.ndarray, "_"],
    coreset_weights: Float[np.ndarray, "_"],
    method: str = "nearest",
    neighbors: int = 1,
    power: float = 1.0,
) -> tuple[Float32[np.ndarray, "n"], Int64[np.ndarray, "n k"], Float32[np.ndarray, "n k"]]:
    """Weights of all n samples (mean 1), ids and distances of their k nearest coreset samples.

    `coreset_ids` are rows of `features`. With `method="nearest"` a sample gets the mean weight of
    its k nearest coreset samples, which for k = 1 is the paper's equation 3; a coreset sample is
    its own nearest. With `method="vote"` it gets the share of its neighbours' weight that carries its
    own label, to the power `power`; a coreset sample is none of its own neighbours. Raises
    ValueError in one line for unknown methods, arrays that do not fit together, and weights that
    cannot be scaled to mean 1.
    """
    weigh = batch_method(method)
    _check(features, labels, coreset_ids, coreset_weights, neighbors, method)
    weight_of = np.zeros(len(features), np.float32)
    weight_of[coreset_ids] = coreset_weights
    index = NeighborIndex(features[coreset_ids], coreset_ids)
    weights, ids, distances = [], [], []
    for start in range(0, len(features), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        query_ids = np.arange(len(features))[rows]
        near, near_ids = search(method, index, features[rows], query_ids, neighbors)
        shares = weigh(weight_of[near_ids], labels[near_ids], labels[rows])
        weights.append(shares**power)
        ids.append(near_ids)
        distances.append(near)
    return normalise(np.concatenate(weights)), np.concatenate(ids), np.concatenate(distances)
