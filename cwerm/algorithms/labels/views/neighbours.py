"""Neighbours in the reference set that may vouch for a sample: neither itself nor a near-duplicate of it.

Near-duplicates are closer than a tenth of what separates a sample from its neighbours as a rule, directly or
by a chain of such. A burst of shots that share a wrong label would otherwise vouch for each other.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cwerm.algorithms.neighbors import NeighborIndex

__all__ = ["Neighbourhood", "near_duplicates", "search_all"]

DUPLICATE = 0.1  # of the usual distance, as 1 - cosine
SPARE = 12  # more than are asked for, in place of those that may not vouch
NONE = -1


Found = tuple[Float32[np.ndarray, "n width"], Int64[np.ndarray, "n width"]]  # distances and rows


def search_all(index: NeighborIndex, vectors: Float32[np.ndarray, "m d"], k: int) -> Found:
    """The nearest of each vector of the index, with as many to spare as `Neighbourhood.search` asks for."""
    return index.search(vectors, k + SPARE)


def near_duplicates(found: Found, k: int) -> tuple[Int64[np.ndarray, " m"], float]:
    """A group number for each vector, and the distance below which two are of one group.

    From what `search_all` found.
    """
    distances, ids = found
    usual = float(np.median(distances[:, min(k, distances.shape[1] - 1)]))
    reach = float(np.sqrt(DUPLICATE)) * usual
    rows, columns = np.nonzero(distances <= reach)
    size = len(distances)
    linked = coo_array((np.ones(len(rows), bool), (rows, ids[rows, columns])), shape=(size, size))
    _, group = connected_components(linked, directed=False)
    return first_seen(group), reach


def first_seen(group: np.ndarray) -> Int64[np.ndarray, " m"]:
    """Group numbers from 0 on, in the order of their first samples."""
    _, first, code = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[code]


def joined(first: np.ndarray, second: np.ndarray) -> Int64[np.ndarray, " m"]:
    """Groups of samples that share a group of either kind, by chains of such."""
    first, second = first_seen(first), first_seen(second)
    size = int(first.max()) + int(second.max()) + 2
    links = coo_array(
        (np.ones(len(first), bool), (first, second + int(first.max()) + 1)), shape=(size, size)
    )
    return first_seen(connected_components(links, directed=False)[1][first])


class Neighbourhood:
    """The reference set's vectors, and which of them are of one group."""

    def __init__(
        self,
        vectors: Float32[np.ndarray, "m d"],
        group: Int64[np.ndarray, " m"],
        reach: float,
        index: NeighborIndex | None = None,
    ) -> None:
        self.vectors, self.group, self.reach = vectors, group, reach
        self.index = NeighborIndex(vectors, np.arange(len(vectors))) if index is None else index

    def search(
        self,
        queries: Float32[np.ndarray, "n d"],
        own: Int64[np.ndarray, " n"],
        k: int,
        barred: Int64[np.ndarray, " n"] | None = None,
        first: Found | None = None,
    ) -> tuple[Int64[np.ndarray, "n k"], Int64[np.ndarray, " n"]]:
        """Rows of the k nearest that may vouch, nearest first, and a near-duplicate; -1 where there is none.

        `own` is the group of each query in the reference set, -1 for none; `barred` one more group that may
        not vouch for it. `first` is what `search_all` found of them, where that is known.
        """
        found = np.full((len(queries), k), NONE, np.int64)
        twin = np.full(len(queries), NONE, np.int64)
        open_rows, width = np.arange(len(queries)), k + SPARE
        while len(open_rows):
            width = min(width, len(self.vectors))
            if first is None:
                distances, ids = self.index.search(queries[open_rows], width)
            else:
                (distances, ids), first = first, None
            twin[open_rows] = np.where(distances[:, 0] <= self.reach, ids[:, 0], NONE)
            allowed = ~self._barred(distances, ids, own[open_rows])
            if barred is not None:
                allowed &= (self.group[ids] != barred[open_rows, None]) | (
                    barred[open_rows, None] < 0
                )
            place = np.cumsum(allowed, axis=1) - 1
            rows, columns = np.nonzero(allowed & (place < k))
            found[open_rows[rows], place[rows, columns]] = ids[rows, columns]
            done = (allowed.sum(axis=1) >= k) | (width == len(self.vectors))
            open_rows = open_rows[~done]
            width *= 8
        return found, twin

    def _barred(
        self,
        distances: Float32[np.ndarray, "n width"],
        ids: Int64[np.ndarray, "n width"],
        own: Int64[np.ndarray, " n"],
    ) -> Bool[np.ndarray, "n width"]:
        groups = self.group[ids]
        barred = (groups == own[:, None]) | (distances <= self.reach)
        near = np.flatnonzero((distances[:, 0] <= self.reach) & (own == NONE))
        for row in near:  # what a near-duplicate's group holds is one shot more
            barred[row] |= np.isin(groups[row], groups[row][distances[row] <= self.reach])
        return barred
