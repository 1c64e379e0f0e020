"""Two unlike views of a sample's class, neither swayed by its own label, and the belief of both together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from cwerm.algorithms.labels import network
from cwerm.algorithms.labels.transitions import normalised

__all__ = ["fit_networks", "folds_of", "neighbours_for", "predict_by", "shares", "together"]

NEIGHBOURS, LEAST_NEIGHBOURS = 20, 5
SHARE_FLOOR, NETWORK_FLOOR = 0.02, 0.001
FOLDS = 2


def neighbours_for(labels: Int64[np.ndarray, " m"]) -> int:
    """How many neighbours to ask: fewer where classes are small, about a third of the usual class."""
    sizes = np.bincount(labels)
    usual = np.median(np.repeat(sizes, sizes))
    return int(np.clip(usual / 3, LEAST_NEIGHBOURS, NEIGHBOURS))


def shares(
    targets: Float[np.ndarray, "m classes"], near: Int64[np.ndarray, "n k"]
) -> Float64[np.ndarray, "n classes"]:
    """The mean target of the neighbours; all classes alike where there is no neighbour (-1)."""
    total = np.zeros((len(near), targets.shape[1]))
    for column in near.T:
        there = column >= 0
        total[there] += targets[column[there]]
    number = (near >= 0).sum(axis=1, keepdims=True)
    return np.where(number > 0, total / np.maximum(number, 1), 1 / targets.shape[1])


def folds_of(group: Int64[np.ndarray, " m"], seed: int) -> Int64[np.ndarray, " m"]:
    """A fold for each sample, the same for all of a group."""
    return np.random.default_rng(seed).permutation(int(group.max()) + 1)[group] % FOLDS


def fit_networks(
    vectors: Float32[np.ndarray, "m d"],
    targets: Float32[np.ndarray, "m classes"],
    fold: Int64[np.ndarray, " m"],
    seed: int,
) -> list[network.Network]:
    """One network on all samples, and one without each fold."""
    parts = [np.flatnonzero(fold != number) for number in range(FOLDS)]
    everything = np.arange(len(fold))
    rows = [everything, *(part if len(part) else everything for part in parts)]
    return [network.train(vectors, targets, seed + i, part) for i, part in enumerate(rows)]


def predict_by(
    networks: list[network.Network],
    which: Int64[np.ndarray, " n"],
    vectors: Float32[np.ndarray, "n d"],
) -> Float64[np.ndarray, "n classes"]:
    """Predictions, of each sample by the network that `which` names."""
    predicted = np.empty((len(vectors), networks[0][2].shape[2]))
    for number, made in enumerate(networks):
        rows = np.flatnonzero(which == number)
        if len(rows):
            predicted[rows] = network.predict(made, vectors[rows])
    return predicted


def together(
    *views: Float64[np.ndarray, "n classes"] | None,
) -> Float64[np.ndarray, "n classes"]:
    """The neighbours' shares, the network's predictions and a user's own, as far as they are there, as one.

    They are multiplied: a class must be likely in each.
    """
    floors = (SHARE_FLOOR, NETWORK_FLOOR, NETWORK_FLOOR)
    joint: Float64[np.ndarray, "n classes"] | None = None
    for view, floor in zip(views, floors, strict=True):
        if view is not None:
            joint = view + floor if joint is None else joint * (view + floor)
    assert joint is not None
    return normalised(joint)
