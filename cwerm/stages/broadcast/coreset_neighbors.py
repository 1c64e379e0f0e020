"""Each sample's nearest coreset samples, part by part of the features.

Every worker holds the whole index where it fits ``broadcast.max_index_bytes``. Else the coreset is cut
into shards that do, every part is searched in one shard after the other, and the results are merged:
they are those of the whole index.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms.neighbors import NeighborIndex, merge_top_k
from cwerm.runtime.parallel import Pool
from cwerm.stages import common
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, File
from cwerm.store.writing import Writer

ID_BYTES = 40  # of one vector: its id, and its place in the order of the index

# (part, its features [b, d]) -> distances and ids, both [b, k], by distance and then by id
Find = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def make_find(
    pool: Pool,
    store: ArtifactStore,
    features: Artifact,
    writer: Writer,
    ids: np.ndarray,
    k: int,
    max_index_bytes: int,
) -> Callable[[], Find]:
    """What a worker calls to find the ``k`` nearest of the samples ``ids``.

    Several shards are searched right here, on the pool; one is left to the caller's own pass.
    """
    parts = list(range(len(features.tables["features"])))
    shards = np.array_split(ids, num_shards(store, features, len(ids), max_index_bytes))
    if len(shards) == 1:
        return functools.partial(_Whole, _vectors(store, features, ids), ids, k)
    found: dict[int, list[File]] = {part: [] for part in parts}
    for number, shard in enumerate(shards):
        vectors = _vectors(store, features, shard)
        search = functools.partial(_Shard, store, features, writer, number, vectors, shard, k)
        title = f"broadcast: shard {number + 1} of {len(shards)}"
        for part, file in pool.map(search, parts, title):
            found[part].append(file)
    return functools.partial(_Merged, writer, found, k)


def num_shards(store: ArtifactStore, features: Artifact, samples: int, max_index_bytes: int) -> int:
    """Indexes that the samples need: FAISS's copy of the vectors, one to compare with, and the ids."""
    needed = samples * (2 * 4 * common.dimensions(store, features) + ID_BYTES)
    return min(samples, -(-needed // max_index_bytes))


def _vectors(store: ArtifactStore, features: Artifact, ids: np.ndarray) -> np.ndarray:
    return np.stack(common.take_rows(store, features, "features", "feature", ids))


class _Whole:
    """The whole index in this worker."""

    def __init__(self, vectors: np.ndarray, ids: np.ndarray, k: int) -> None:
        self.index, self.k = NeighborIndex(vectors, ids), k

    def __call__(self, part: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        del part
        return self.index.search(vectors, self.k)


class _Shard:
    """One shard's index in this worker; what it finds is written for `_Merged`."""

    def __init__(
        self,
        store: ArtifactStore,
        features: Artifact,
        writer: Writer,
        number: int,
        vectors: np.ndarray,
        ids: np.ndarray,
        k: int,
    ) -> None:
        self.store, self.features, self.writer, self.number = store, features, writer, number
        self.index, self.k = NeighborIndex(vectors, ids), k

    def __call__(self, part: int) -> File:
        rows = self.store.read_part(self.features, "features", part, ["feature"])
        distances, ids = self.index.search(common.column(rows, "feature"), self.k)
        fields = schema.table_schema("neighbors")
        columns = [
            pa.array(values.ravel(), field.type)
            for values, field in zip((ids, distances), fields, strict=True)
        ]
        name = f"neighbors-{self.number:05d}"
        return self.writer.write_unpublished(
            "neighbors", part, pa.table(columns, schema=fields), name=name
        )


class _Merged:
    """The best of what the shards gave."""

    def __init__(self, writer: Writer, found: dict[int, list[File]], k: int) -> None:
        self.writer, self.found, self.k = writer, found, k

    def __call__(self, part: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tables: list[Any] = [self.writer.read_unpublished(file) for file in self.found[part]]
        by_row = (len(vectors), -1)
        return merge_top_k(
            [common.column(table, "neighbor_distance").reshape(by_row) for table in tables],
            [common.column(table, "neighbor_id").reshape(by_row) for table in tables],
            self.k,
        )
