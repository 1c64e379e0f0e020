"""Who may vouch for a sample, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.algorithms import neighbors
from cwerm.algorithms.labels.views import space
from cwerm.algorithms.labels.views.neighbours import (
    Neighbourhood,
    joined,
    near_duplicates,
    search_all,
)
from cwerm.algorithms.labels.views.space import LENGTH, fit_space, to_space
from cwerm.algorithms.neighbors import NeighborIndex


def unit_rows(random: np.random.Generator, n: int, d: int = 5) -> np.ndarray:
    rows = random.normal(size=(n, d))
    return (LENGTH * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_neighbours_are_the_nearest_that_are_no_near_duplicates(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = unit_rows(random, 60)
    copies = random.integers(0, 60, 12)
    vectors = np.concatenate([vectors, vectors[copies]])
    group, reach = near_duplicates(search_all(NeighborIndex(vectors, np.arange(72)), vectors, 8), 8)
    places = Neighbourhood(vectors, group, reach)
    queries = np.concatenate([vectors[:20], unit_rows(random, 10), vectors[:3]])
    own = np.concatenate([group[:20], np.full(13, -1)])
    found, twin = places.search(queries, own, 8)
    for row, query in enumerate(queries):
        distances = np.linalg.norm(vectors.astype(np.float64) - query, axis=1)
        close = np.flatnonzero(distances <= reach)
        barred = set(group[close]) | {own[row]}
        order = [i for i in np.argsort(distances, kind="stable") if group[i] not in barred][:8]
        assert sorted(found[row]) == sorted(order)
        assert (twin[row] >= 0) == (len(close) > 0)


def test_copies_and_chains_of_near_copies_are_one_group() -> None:
    random = np.random.default_rng(0)
    vectors = unit_rows(random, 200, 20)
    step = 0.01 * unit_rows(random, 1, 20)[0]
    chain = np.stack([vectors[0] + step * i for i in range(1, 4)])
    everything = np.concatenate([vectors, chain, vectors[5:6]]).astype(np.float32)
    group, _ = near_duplicates(
        search_all(NeighborIndex(everything, np.arange(204)), everything, 20), 20
    )
    assert set(np.flatnonzero(group == group[0])) == {0, 200, 201, 202}
    assert set(np.flatnonzero(group == group[5])) == {5, 203}
    assert len(set(group)) == 200


def test_groups_of_two_kinds_are_joined_by_chains() -> None:
    np.testing.assert_array_equal(
        joined(np.array([0, 0, 1, 2, 3]), np.array([9, 8, 8, 7, 6])), [0, 0, 0, 1, 2]
    )


@pytest.mark.parametrize("k", [1, 7, 40])
def test_without_faiss_the_neighbours_are_the_same(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(k)
    vectors, queries = random.normal(size=(300, 16)), random.normal(size=(50, 16))
    vectors[100:110] = vectors[:10]
    expected = NeighborIndex(vectors, np.arange(300)).search(queries, k)
    monkeypatch.setattr(neighbors, "faiss", None)
    found = NeighborIndex(vectors, np.arange(300)).search(queries, k)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("m", "d"), [(200, 30), (40, 300)])
def test_the_space_keeps_cosines_of_centred_features(m: int, d: int) -> None:
    features = np.random.default_rng(0).normal(size=(m, d)) + 5
    mean, axes = fit_space(features)
    vectors = to_space(features, mean, axes).astype(np.float64) / LENGTH
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors @ vectors.T, centred @ centred.T, atol=1e-5)


def test_many_dimensions_are_reduced_to_the_widest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "EXACT", 100)
    random = np.random.default_rng(0)
    wide = random.normal(size=(400, 20)) @ random.normal(size=(20, 350)) * 10
    features = wide + 0.1 * random.normal(size=(400, 350))
    mean, axes = fit_space(features)
    _, _, exact = np.linalg.svd(features - mean, full_matrices=False)
    overlap = np.linalg.svd(exact[:20] @ axes, compute_uv=False)
    assert overlap.min() > 0.999
    assert axes.shape == (350, 256)
