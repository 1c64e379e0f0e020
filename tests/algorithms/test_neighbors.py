from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.algorithms import neighbors
from cwerm.algorithms.neighbors import NeighborIndex, merge_top_k


@pytest.fixture(autouse=True, params=["differences", "products"])
def faiss_formula(request: pytest.FixtureRequest):
    """FAISS's two formulas: from differences, or expanded, as on GPUs and for large batches."""
    default = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = 1 if request.param == "products" else 1_000_000
    yield
    faiss.cvar.distance_compute_blas_threshold = default


def brute_force(
    vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    exact, asked = vectors.astype(np.float64), queries.astype(np.float64)
    distances, chosen = [], []
    for query in asked:
        near = np.sqrt(((exact - query) ** 2).sum(axis=1)).astype(np.float32)
        order = sorted(range(len(ids)), key=lambda i: (near[i], ids[i]))[:k]
        distances.append(near[order])
        chosen.append(ids[order])
    return np.array(distances), np.array(chosen)


def assert_exact(index: NeighborIndex, vectors, ids, queries, k: int) -> None:
    distances, found = index.search(queries, k)
    expected_distances, expected = brute_force(vectors, ids, queries, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(distances, expected_distances)


def make_data(m: int, d: int, dtype=np.float32, offset: float = 0) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(m + d)
    vectors = (generator.standard_normal((m, d)) + offset).astype(dtype)
    queries = (generator.standard_normal((50, d)) + offset).astype(dtype)
    queries[:10] = vectors[:10]
    return vectors, generator.permutation(10 * m)[:m], queries


@pytest.mark.parametrize("k", [1, 5, 30])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("offset", [0, 100])  # far from the origin FAISS alone is wrong
def test_equals_brute_force(k: int, dtype: type, offset: float) -> None:
    vectors, ids, queries = make_data(3000, 16, dtype, offset)
    assert_exact(NeighborIndex(vectors, ids), vectors, ids, queries, k)


@pytest.mark.parametrize("k", [1, 7])
def test_more_duplicates_than_candidates(k: int) -> None:
    vectors, ids, queries = make_data(2000, 8)
    vectors[500:1500] = vectors[0]
    vectors[1500:1600] = -vectors[0]  # ties with the thousand seen from the origin
    queries[-1] = 0
    vectors[1700:, 0] = 0.0
    vectors[1800:] = vectors[1700:1900]
    vectors[1800:, 0] = -0.0
    queries[20:30] = vectors[1750:1760]
    assert_exact(NeighborIndex(vectors, ids), vectors, ids, queries, k)


@pytest.mark.parametrize("k", [1, 4])
def test_more_ties_of_different_vectors_than_candidates(k: int) -> None:
    # a grid: many distinct vectors at the same distance, so the candidates must grow
    grid = np.stack(np.meshgrid(*[np.arange(-7, 8)] * 3), axis=-1).reshape(-1, 3)
    vectors = grid[(grid**2).sum(axis=1) >= 25].astype(np.float32)
    ids = np.random.default_rng(0).permutation(len(vectors))
    queries = np.zeros((3, 3), np.float32)
    queries[1:] += 0.5
    assert_exact(NeighborIndex(vectors, ids), vectors, ids, queries, k)


def test_near_ties_below_float32_resolution() -> None:
    generator = np.random.default_rng(0)
    vectors = (1000 + 1e-3 * generator.standard_normal((2500, 32))).astype(np.float32)
    assert_exact(NeighborIndex(vectors, np.arange(2500)), vectors, np.arange(2500), vectors[:40], 3)


def test_clusters_far_apart_where_rounding_hides_the_near_distances() -> None:
    generator = np.random.default_rng(0)
    vectors = (1e-3 * generator.standard_normal((1000, 64))).astype(np.float32)
    vectors += np.where(np.arange(1000) % 2, 1, -1).astype(np.float32)[:, None]
    queries = (1e-3 * generator.standard_normal((200, 64)) + 1).astype(np.float32)
    ids = np.arange(1000)
    assert_exact(NeighborIndex(vectors, ids), vectors, ids, queries, 3)


def test_all_vectors_are_compared_where_the_candidates_reach_their_limit(monkeypatch) -> None:
    monkeypatch.setattr(neighbors, "MAX_CANDIDATES", 20)
    vectors, ids, queries = make_data(2000, 8)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries[:] = np.float32(1e-6) * queries  # all vectors about equally far
    assert_exact(NeighborIndex(vectors, ids), vectors, ids, queries, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 120), st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99)
)
def test_shards_merge_to_the_whole(m: int, d: int, k: int, shards: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-2, 3, (m, d)).astype(np.float32)  # duplicates and ties
    ids = generator.permutation(m)
    queries = generator.integers(-2, 3, (9, d)).astype(np.float32)
    distances, found = NeighborIndex(vectors, ids).search(queries, k)
    parts = [part for part in np.array_split(generator.permutation(m), shards) if part.size]
    results = [NeighborIndex(vectors[part], ids[part]).search(queries, k) for part in parts]
    merged_distances, merged = merge_top_k([r[0] for r in results], [r[1] for r in results], k)
    np.testing.assert_array_equal(merged, found)
    np.testing.assert_array_equal(merged_distances, distances)
    np.testing.assert_array_equal(found, brute_force(vectors, ids, queries, k)[1])


@pytest.mark.parametrize("offset", [0, 30])
def test_large_shards_and_batches_of_one_equal_the_whole(offset: float) -> None:
    vectors, ids, queries = make_data(3000, 64, np.float32, offset)
    index = NeighborIndex(vectors, ids)
    distances, found = index.search(queries, 4)
    alone = [index.search(queries[[i]], 4) for i in range(len(queries))]
    np.testing.assert_array_equal(np.concatenate([a[1] for a in alone]), found)
    np.testing.assert_array_equal(np.concatenate([a[0] for a in alone]), distances)
    shards = [slice(0, 700), slice(700, 3000)]
    results = [NeighborIndex(vectors[s], ids[s]).search(queries, 4) for s in shards]
    merged_distances, merged = merge_top_k([r[0] for r in results], [r[1] for r in results], 4)
    np.testing.assert_array_equal(merged, found)
    np.testing.assert_array_equal(merged_distances, distances)


def test_fewer_vectors_than_neighbours() -> None:
    vectors = np.array([[0.0], [3.0], [0.0]], np.float32)
    index = NeighborIndex(vectors, np.array([7, 5, 2]))
    assert len(index) == 3
    distances, ids = index.search(np.array([[1.0]], np.float32), 10)
    assert ids.tolist() == [[2, 7, 5]]
    assert distances.tolist() == [[1.0, 1.0, 2.0]]
