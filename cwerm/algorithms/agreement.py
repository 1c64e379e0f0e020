"""Label agreement: how many of a sample's nearest coreset samples carry its label, leaving itself out.

A sample of the coreset is its own nearest neighbour, and would always agree with itself; so it is left
out of its own neighbours, and agreement means the same inside the coreset and outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, Integer

from cwerm.algorithms.inputs import (
    Given,
    as_features,
    as_labels,
    blocks,
    check_whole_number,
)
from cwerm.algorithms.neighbors import NeighborIndex

__all__ = [
    "Surroundings",
    "consistent_samples",
    "label_agreement",
    "search_others",
    "surroundings",
    "without_own",
]

META_NEIGHBORS = 10
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


def consistent_samples(
    features: Given,
    labels: Given,
    per_class: int,
    neighbors: int = META_NEIGHBORS,
) -> Int[np.ndarray, " chosen"]:
    """Row numbers, ascending, of each class's `per_class` samples that agree most with the others.

    A meta set for those who have no clean labels. Of equal agreement the nearer to its neighbours is
    taken, then the first. Raises ValueError naming a class that has fewer than twice as many.
    """
    vectors = as_features(features)
    codes, classes = as_labels(labels, len(vectors))
    check_whole_number("per_class", per_class, 1)
    check_whole_number("neighbors", neighbors, 1)
    rows = np.arange(len(codes))
    index = NeighborIndex(vectors, rows)
    distances, found = search_others(index, vectors, rows, min(neighbors, len(codes) - 1))
    agreement = label_agreement(codes[found], codes)
    order = np.lexsort((rows, distances.mean(axis=1), -agreement))
    chosen = []
    for code, label in enumerate(classes):
        members = order[codes[order] == code]
        if len(members) < 2 * per_class:
            raise ValueError(
                f"class {label} has {len(members)} samples, too few to take {per_class} of them as "
                "meta set and learn from the rest"
            )
        chosen.append(members[:per_class])
    return np.sort(np.concatenate(chosen))
