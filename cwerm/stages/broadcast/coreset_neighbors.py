"""Each sample's nearest coreset samples, part by part of the features.

Every worker holds the whole index where it fits ``broadcast.max_index_bytes``. Else the coreset is cut
into shards that do. A worker then searches each part in one shard after the other and keeps the best: they
are those of the whole index, and the features are read once. The coreset's vectors lie once on a node,
where Ray shares them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from cwerm.algorithms.neighbors import NeighborIndex, merge_top_k
from cwerm.runtime.parallel import Pool
from cwerm.stages import common
from cwerm.store.artifacts import Artifact, ArtifactStore

ID_BYTES = 40  # of one vector: its id, and its place in the order of the index
PARTS_HERE = 16  # of so many parts the driver takes the coreset's vectors itself

# features [b, d] -> distances and ids, both [b, k], by distance and then by id
Find = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_find(
    pool: Pool,
    store: ArtifactStore,
    features: Artifact,
    ids: np.ndarray,
    k: int,
    max_index_bytes: int,
) -> Callable[[], Find]:
    """What a worker calls to find the ``k`` nearest of the samples ``ids``, which ascend."""
    vectors = _vectors(pool, store, features, ids)
    shards = num_shards(store, features, len(ids), max_index_bytes)
    if shards == 1:
        return functools.partial(_Whole, vectors, ids, k)
    pairs = zip(np.array_split(vectors, shards), np.array_split(ids, shards), strict=True)
    return functools.partial(_InShards, [*pairs], k)


def num_shards(store: ArtifactStore, features: Artifact, samples: int, max_index_bytes: int) -> int:
    """Indexes that the samples need: FAISS's copy of the vectors, one to compare with, and the ids."""
    needed = samples * (2 * 4 * common.dimensions(store, features) + ID_BYTES)
    return min(samples, -(-needed // max_index_bytes))


def _vectors(pool: Pool, store: ArtifactStore, features: Artifact, ids: np.ndarray) -> np.ndarray:
    """Features of the samples; where many parts hold them, the workers read those."""
    ends = np.cumsum([part.rows for part in features.tables["features"]])
    part_of = np.searchsorted(ends, ids, side="right")
    parts, first = np.unique(part_of, return_index=True)
    if len(parts) <= PARTS_HERE:
        return np.stack(common.take_rows(store, features, "features", "feature", ids))
    edges = [*first.tolist(), len(ids)]
    work = [ids[start:stop] for start, stop in pairwise(edges)]
    found: np.ndarray | None = None
    take = functools.partial(_Take, store, features)
    for index, rows in pool.map(take, work, "broadcast: coreset"):
        if found is None:
            found = np.empty((len(ids), rows.shape[1]), rows.dtype)
        found[edges[index] : edges[index + 1]] = rows
    assert found is not None, "a coreset has samples"
    return found


class _Take:
    """Takes the features of some samples."""

    def __init__(self, store: ArtifactStore, features: Artifact) -> None:
        self.store, self.features = store, features

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return np.stack(common.take_rows(self.store, self.features, "features", "feature", ids))


class _Whole:
    """The whole index in this worker."""

    def __init__(self, vectors: np.ndarray, ids: np.ndarray, k: int) -> None:
        self.index, self.k = NeighborIndex(vectors, ids), k

    def __call__(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(vectors, self.k)


class _InShards:
    """One shard's index after the other, and the best of what they give."""

    def __init__(self, shards: list[tuple[np.ndarray, np.ndarray]], k: int) -> None:
        self.shards, self.k = shards, k

    def __call__(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best: Any = None
        for own, ids in self.shards:
            found = NeighborIndex(own, ids).search(vectors, self.k)
            if best is not None:
                found = merge_top_k([best[0], found[0]], [best[1], found[1]], self.k)
            best = found
        return best
