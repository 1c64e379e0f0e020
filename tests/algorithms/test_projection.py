"""The plane keeps neighbours together, and is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from cwerm.algorithms.projection import on_a_plane


def test_groups_stay_apart_and_the_places_are_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    group = np.arange(90) % 3
    features = random.normal(size=(3, 20))[group] * 3 + random.normal(size=(90, 20))
    places = on_a_plane(features)
    assert places.shape == (90, 2)
    np.testing.assert_array_equal(places, on_a_plane(features))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).mean() > 0.95


@pytest.mark.parametrize("shape", [(2, 5), (3, 1), (5, 2)])
def test_a_few_samples_have_places(shape: tuple[int, int]) -> None:
    places = on_a_plane(np.random.default_rng(1).normal(size=shape))
    assert places.shape == (shape[0], 2)
    assert np.isfinite(places).all()


def test_equal_samples_lie_on_one_place() -> None:
    assert not on_a_plane(np.ones((7, 3))).any()
