"""Label agreement: how many of a sample's nearest coreset samples carry its label, leaving itself out.

A sample of the coreset is its own nearest neighbour, and would always agree with itself; so it is left
out of its own neighbours, and agreement means the same inside the coreset and outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer

from cwerm.algorithms.inputs import (
    Given,
    blocks,
)
from cwerm.algorithms.neighbors import NeighborIndex

__all__ = [
    "Surroundings",
    "label_agreement",
    "search_others",
    "surroundings",
    "without_own",
]

VOTERS = 10


@dataclass(frozen=True)
class Surroundings:
    """Features [n, d], and by how much the nearest neighbours' labels favour each sample's own.

    A margin, float32 in -1 to 1, is the share of the neighbours with the sample's label less that of the
    most frequent other label.
    """

    features: Float[np.ndarray, "n d"]
    margins: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.margins)

    def __getitem__(self, rows: Integer[np.ndarray, " some"]) -> Surroundings:
        return Surroundings(self.features[rows], self.margins[rows])


def surroundings(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, " n"],
    neighbors: int = VOTERS,
) -> Surroundings:
    """The features and how far each label has the votes of its neighbours among all these samples."""
    rows = np.arange(len(labels))
    _, found = search_others(
        NeighborIndex(features, rows), features, rows, min(neighbors, len(rows) - 1)
    )
    margins = np.empty(len(rows), np.float32)
    num_classes = int(labels.max()) + 1
    for part in blocks(len(rows), num_classes):
        votes = np.zeros((len(rows[part]), num_classes), np.float32)
        np.add.at(votes, (np.arange(len(votes))[:, None], labels[found[part]]), 1)
        own = (np.arange(len(votes)), labels[part])
        mine = votes[own]
        votes[own] = 0
        margins[part] = (mine - votes.max(axis=1)) / found.shape[1]
    return Surroundings(features, margins)


def search_others(
    index: NeighborIndex,
    features: Given,
    ids: Integer[np.ndarray, " b"],
    neighbors: int,
) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
    """Distances and ids of the nearest samples in the index with another id than the query's own."""
    return without_own(*index.search(features, neighbors + 1), ids)


def without_own(
    distances: Float32[np.ndarray, "b found"],
    found: Int64[np.ndarray, "b found"],
    ids: Integer[np.ndarray, " b"],
) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
    """The neighbours but the query itself, or but the farthest where the query is none of them."""
    own = found == ids[:, None]
    own[~own.any(axis=1), -1] = True  # not in the index: the farthest is one too many
    rest = (len(ids), found.shape[1] - 1)
    return distances[~own].reshape(rest), found[~own].reshape(rest)


def label_agreement(
    neighbor_labels: Integer[np.ndarray, "b k"], labels: Integer[np.ndarray, " b"]
) -> Float32[np.ndarray, " b"]:
    """Share of each sample's neighbours that carry its label, in 0 to 1."""
    return (neighbor_labels == labels[:, None]).mean(axis=1, dtype=np.float32)
