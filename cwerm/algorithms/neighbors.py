"""Exact Euclidean nearest neighbours, with FAISS or, where that is missing, torch; and merging shards.

On GPUs and for large batches FAISS expands |q - x|^2 = |q|^2 + |x|^2 - 2qx in float32, which loses
digits and orders ties by chance. So it only proposes: more candidates than asked for, whose
distances are computed again from the differences in float64. A bound on FAISS's rounding tells
whether anything outside the candidates could belong to the answer; if so, the query is asked again
with more of them. Results are sorted by (float32 distance, id) and depend neither on the batch of
queries nor on how the vectors are sharded.

What FAISS sees is less its mean, both in float64, and scaled where squares could leave float32's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64, Integer

from cwerm.algorithms.inputs import Given, as_features

try:
    import faiss
except ImportError:  # there are no wheels for every platform
    faiss = None  # type: ignore[assignment]

__all__ = ["NeighborIndex", "made_for_gpus", "merge_top_k"]

SPARE_CANDIDATES = 4
MAX_CANDIDATES = 2048  # FAISS's limit on GPUs; beyond it all vectors are compared
CHUNK_ELEMENTS = 1 << 22  # compared at once, which bounds the memory
CACHED_ELEMENTS = 1 << 18
UNIT_ROUNDOFF = 2.0**-24
NO_ID = np.iinfo(np.int64).max
PLAIN_EXPONENT = 30  # up to 2^30, and down to 2^-30, features are not scaled


def _compared(vectors: Given, name: str) -> Float[np.ndarray, "n d"]:
    """Rows in the type they are compared in: float64 as it is, else float32."""
    rows = as_features(vectors, name)
    return np.ascontiguousarray(rows, np.float64 if rows.dtype == np.float64 else np.float32)


def merge_top_k(
    distances: Sequence[Float32[np.ndarray, "b _"]], ids: Sequence[Int64[np.ndarray, "b _"]], k: int
) -> tuple[Float32[np.ndarray, "b found"], Int64[np.ndarray, "b found"]]:
    """The k best of several shards' results for the same queries: by distance, then by id."""
    every_distance, every_id = np.concatenate(distances, axis=1), np.concatenate(ids, axis=1)
    order = np.lexsort((every_id, every_distance), axis=-1)[:, :k]
    return (
        np.take_along_axis(every_distance, order, axis=1),
        np.take_along_axis(every_id, order, axis=1),
    )


def made_for_gpus() -> bool:
    """Whether this FAISS searches on a GPU where it sees one."""
    return hasattr(faiss, "StandardGpuResources")


def _flat_index(dimensions: int) -> Any:
    if faiss is None:
        return _TorchIndex()
    index: Any = faiss.IndexFlatL2(dimensions)
    if faiss.get_num_gpus() == 0:
        return index
    resources = faiss.StandardGpuResources()
    index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.resources = resources  # must live as long as the index
    return index


class _TorchIndex:
    """What is used of `faiss.IndexFlatL2`, as a product of matrices; with the same bound on rounding."""

    def add(self, vectors: Float32[np.ndarray, "m d"]) -> None:
        import torch

        self.vectors = torch.from_numpy(vectors)
        self.squares = self.vectors.square().sum(1)

    def search(
        self, queries: Float32[np.ndarray, "b d"], k: int
    ) -> tuple[Float32[np.ndarray, "b k"], Int64[np.ndarray, "b k"]]:
        import torch

        asked = torch.from_numpy(queries)
        products = torch.addmm(self.squares, asked, self.vectors.T, alpha=-2)
        squared = products + asked.square().sum(1, keepdim=True)
        near, ids = squared.topk(k, dim=1, largest=False)
        return near.numpy(), ids.numpy()


class NeighborIndex:
    """Vectors [m, d] with int64 ids, searched on a GPU where FAISS sees one.

    Equal vectors are stored once, as they would fill the candidates. Vectors and queries may be of any
    type; what float64 tells apart is kept. Raises ValueError for a row with NaN, infinity or values
    beyond 1e30.
    """

    def __init__(self, vectors: Given, ids: Integer[np.ndarray, "m"]) -> None:
        rows = _compared(vectors, "features")
        row_bytes = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
        _, first, group = np.unique(row_bytes, return_index=True, return_inverse=True)
        order = np.lexsort((ids, group))
        self._vectors = rows[first]
        self._ids = ids[order].astype(np.int64)  # by vector, ascending
        self._sizes = np.bincount(group)
        self._starts = np.cumsum(self._sizes) - self._sizes
        # small norms keep FAISS's cancellation small
        self._mean = self._vectors.mean(axis=0, dtype=np.float64)
        reach = np.abs(self._vectors - self._mean).max()
        exponent = int(np.frexp(reach)[1])
        self._scale = 2.0 ** (-exponent if abs(exponent) > PLAIN_EXPONENT else 0)
        self._index = _flat_index(rows.shape[1])
        self._index.add(self._centered(self._vectors))

    def __len__(self) -> int:
        return len(self._ids)

    def search(
        self, queries: Given, k: int
    ) -> tuple[Float32[np.ndarray, "b found"], Int64[np.ndarray, "b found"]]:
        """Euclidean distances and ids of the k nearest vectors, ties by the lowest id.

        `found` is k, or the number of vectors in the index where that is smaller.
        """
        queries = _compared(queries, "features")
        if queries.shape[1] != self._vectors.shape[1]:
            raise ValueError(
                f"features have {queries.shape[1]} columns but the index {self._vectors.shape[1]}"
            )
        found = min(k, len(self))
        distances = np.empty((len(queries), found), np.float32)
        ids = np.empty((len(queries), found), np.int64)
        open_queries = np.arange(len(queries))
        width = k + SPARE_CANDIDATES
        while open_queries.size:
            if width > min(MAX_CANDIDATES, len(self._vectors)):
                width = len(self._vectors)
            asked = queries[open_queries]
            parts = self._chunks(len(asked), width)
            results = [self._search_candidates(asked[part], k, width) for part in parts]
            certain = np.concatenate([result[2] for result in results])
            answered = open_queries[certain]
            distances[answered] = np.concatenate([result[0] for result in results])[certain]
            ids[answered] = np.concatenate([result[1] for result in results])[certain]
            open_queries = open_queries[~certain]
            width *= 8
        return distances, ids

    def _chunks(self, num_queries: int, width: int) -> list[slice]:
        rows = max(1, CHUNK_ELEMENTS // (width * self._vectors.shape[1]))
        return [slice(start, start + rows) for start in range(0, num_queries, rows)]

    def _centered(self, rows: Float[np.ndarray, "b d"]) -> Float32[np.ndarray, "b d"]:
        return ((rows - self._mean) * self._scale).astype(np.float32)

    def _search_candidates(
        self, queries: Float[np.ndarray, "b d"], k: int, width: int
    ) -> tuple[Float32[np.ndarray, "b found"], Int64[np.ndarray, "b found"], Bool[np.ndarray, "b"]]:
        """The best k of `width` candidates a query, and whether they are surely the best of all."""
        if width == len(self._vectors):
            candidates = np.broadcast_to(np.arange(width), (len(queries), width))
        else:
            proposed, candidates = self._index.search(self._centered(queries), width)
        squared = self._squared_distances(queries, candidates)
        scaled = (np.sqrt(squared) * self._scale).astype(np.float32)
        near, ids = self._expand(scaled, candidates, k)
        distances = (near / np.float64(self._scale)).astype(np.float32)
        if width == len(self._vectors):
            return distances, ids, np.ones(len(queries), bool)
        # a vector left out that ties or beats the k-th, at distance `reach`, is at most |q| + reach
        # long (centred), so FAISS saw it at most `error` beyond reach^2 (sums of d + O(1) rounded
        # terms)
        reach = near[:, -1].astype(np.float64) * (1 + 4 * UNIT_ROUNDOFF)
        norms = np.linalg.norm(queries - self._mean, axis=1) * self._scale
        error = (queries.shape[1] + 16) * UNIT_ROUNDOFF * (2 * norms + reach) ** 2
        farthest = proposed[:, -1]
        return distances, ids, (farthest > reach**2 + error) & np.isfinite(farthest)

    def _squared_distances(
        self, queries: Float[np.ndarray, "b d"], candidates: Int[np.ndarray, "b width"]
    ) -> Float64[np.ndarray, "b width"]:
        rows, columns = np.indices(candidates.shape).reshape(2, -1)
        flat = candidates[rows, columns]
        squared = np.empty(len(flat))
        step = max(1, CACHED_ELEMENTS // queries.shape[1])
        for start in range(0, len(flat), step):
            pairs = slice(start, start + step)
            differences = self._vectors[flat[pairs]].astype(np.float64)
            differences -= queries[rows[pairs]]
            squared[pairs] = np.square(differences, out=differences).sum(axis=1)
        return squared.reshape(candidates.shape)

    def _expand(
        self,
        distances: Float32[np.ndarray, "b width"],
        candidates: Int[np.ndarray, "b width"],
        k: int,
    ) -> tuple[Float32[np.ndarray, "b found"], Int64[np.ndarray, "b found"]]:
        """From distinct vectors to the k best ids; each of k vectors may stand for up to k ids."""
        lowest = self._ids[self._starts[candidates]]
        best = np.lexsort((lowest, distances), axis=-1)[:, :k]
        groups = np.take_along_axis(candidates, best, axis=1)
        copies = np.arange(min(k, int(self._sizes.max())))
        exists = copies < self._sizes[groups][..., None]
        places = np.where(exists, self._starts[groups][..., None] + copies, 0)
        ids = np.where(exists, self._ids[places], NO_ID).reshape(len(groups), -1)
        near = np.take_along_axis(distances, best, axis=1)[..., None]
        near = np.where(exists, near, np.float32(np.inf)).reshape(len(groups), -1)
        return merge_top_k([near], [ids], min(k, len(self)))
