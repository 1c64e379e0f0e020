"""Images unlike all others: against brute force, and found where they were planted."""

import numpy as np
import pytest

from cwerm.suspects import unusual
from cwerm.suspects.unusual import farthest


def clusters(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, 16))
    return (centres[rng.integers(0, 10, rows)] + 0.1 * rng.normal(size=(rows, 16))).astype("f4")


@pytest.mark.parametrize("reference", [60, 300])
def test_the_order_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch, reference: int) -> None:
    monkeypatch.setattr(unusual, "REFERENCE", reference)
    features = clusters(300)
    drawn = np.sort(np.random.default_rng(3).permutation(300)[:reference])
    between = np.linalg.norm(features[:, None].astype("f8") - features[None, drawn], axis=2)
    between[np.arange(300)[:, None] == drawn] = np.inf
    fifth = np.sort(between, axis=1)[:, 4]
    rows, distances = farthest(features, 20, seed=3)
    assert rows.tolist() == np.argsort(-fifth)[:20].tolist()
    assert distances == pytest.approx(fifth[rows] / np.median(fifth), rel=1e-5)


def test_planted_images_come_first_though_two_are_copies() -> None:
    features = clusters(3000)
    planted = np.array([5, 700, 701, 1500, 2999])
    features[planted] = np.random.default_rng(1).normal(0, 3, (5, 16))
    features[701] = features[700]
    rows, distances = farthest(features, 8, seed=0)
    assert {*rows[:5].tolist()} == {*planted.tolist()}
    assert distances[4] > 2 * distances[5]


def test_few_rows_and_equal_ones_have_an_answer() -> None:
    rows, distances = farthest(np.zeros((4, 3), "f4"), 10, seed=0)
    assert rows.tolist() == [0, 1, 2, 3]
    assert distances.tolist() == [0, 0, 0, 0]
