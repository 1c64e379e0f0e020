from __future__ import annotations

import math

import numpy as np
import pytest

from cwerm.algorithms.spreading.broadcast import batch_method, broadcast_weights, normalise


def make_data(n: int = 9000, m: int = 90) -> tuple[np.ndarray, ...]:
    """More rows than a batch; some features far from the origin."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((n, 12)).astype(np.float32) + 5
    labels = generator.integers(0, 3, n)
    ids = np.sort(generator.choice(n, m, replace=False))
    return features, labels, ids, generator.random(m).astype(np.float32)


def reference(features: np.ndarray, ids: np.ndarray, weights: np.ndarray, k: int) -> tuple:
    """Equation 3, a sample at a time."""
    exact = features.astype(np.float64)
    near_ids, raw = [], []
    for row in exact:
        order = np.argsort(((exact[ids] - row) ** 2).sum(axis=1))[:k]
        near_ids.append(ids[order])
        raw.append(sum(float(weights[i]) for i in order) / k)
    return np.array(raw) / np.mean(raw), np.array(near_ids)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_equals_equation_3(k: int, dtype: type) -> None:
    features, labels, ids, weights = make_data()
    features = features.astype(dtype)
    result, near_ids, distances = broadcast_weights(features, labels, ids, weights, neighbors=k)
    expected, expected_ids = reference(features, ids, weights, k)
    np.testing.assert_array_equal(near_ids, expected_ids)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    exact = np.linalg.norm(features[:, None].astype(np.float64) - features[near_ids], axis=2)
    np.testing.assert_allclose(distances, exact, rtol=1e-6)
    assert result.dtype == distances.dtype == np.float32
    assert result.mean(dtype=np.float64) == pytest.approx(1, abs=1e-7)


def test_a_coreset_sample_keeps_its_weight() -> None:
    features, labels, ids, weights = make_data()
    result, near_ids, distances = broadcast_weights(features, labels, ids, weights)
    assert near_ids[ids, 0].tolist() == ids.tolist()
    assert (distances[ids] == 0).all()
    np.testing.assert_allclose(result[ids] / result[ids[0]], weights / weights[0], rtol=1e-6)


def test_labels_do_not_matter_to_nearest() -> None:
    features, labels, ids, weights = make_data(500, 20)
    first = broadcast_weights(features, labels, ids, weights, neighbors=2)[0]
    other = broadcast_weights(features, labels[::-1], ids, weights, neighbors=2)[0]
    np.testing.assert_array_equal(first, other)


def test_normalise_is_exact_to_the_last_digit() -> None:
    weights = np.random.default_rng(0).random(100_001).astype(np.float32)
    mean = math.fsum(weights.tolist()) / len(weights)
    result = normalise(weights)
    np.testing.assert_array_equal(result, (weights.astype(np.float64) / mean).astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5])
def test_bad_weights(bad: float) -> None:
    with pytest.raises(ValueError, match=r"weight 2 is .* must be finite and not negative"):
        normalise(np.array([1, 0.5, bad, bad], np.float32))


def test_all_zero_weights() -> None:
    with pytest.raises(ValueError, match="all weights are zero"):
        normalise(np.zeros(4, np.float32))


def test_arguments_that_do_not_fit() -> None:
    features, labels, ids, weights = make_data(100, 10)
    with pytest.raises(ValueError, match="unknown broadcast method 'nearst'; did you mean nearest"):
        batch_method("nearst")
    with pytest.raises(ValueError, match="100 features but 99 labels"):
        broadcast_weights(features, labels[1:], ids, weights)
    with pytest.raises(ValueError, match="10 coreset ids but 9 weights"):
        broadcast_weights(features, labels, ids, weights[1:])
    with pytest.raises(ValueError, match="from 1 to 10 with a coreset of 10 samples, got 11"):
        broadcast_weights(features, labels, ids, weights, neighbors=11)
    with pytest.raises(ValueError, match="row numbers from 0 to 99"):
        broadcast_weights(features, labels, ids + 100, weights)
    features[4, 0] = np.nan
    with pytest.raises(ValueError, match="row 4 of the features"):
        broadcast_weights(features, labels, ids, weights)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_vote_is_the_share_of_weight_with_the_same_label(power: float) -> None:
    features, labels, ids, weights = make_data(400, 40)
    result, near_ids, _ = broadcast_weights(
        features, labels, ids, weights, method="vote", neighbors=5, power=power
    )
    weight_of = dict(zip(ids.tolist(), weights.tolist(), strict=True))
    exact = features.astype(np.float64)
    raw = []
    for row in range(len(features)):
        others = ids[ids != row]
        near = others[np.argsort(((exact[others] - exact[row]) ** 2).sum(axis=1))[:5]]
        np.testing.assert_array_equal(near_ids[row], near)
        total = sum(weight_of[i] for i in near)
        raw.append((sum(weight_of[i] for i in near if labels[i] == labels[row]) / total) ** power)
    np.testing.assert_allclose(result, np.array(raw) / np.mean(raw), rtol=1e-5)


def test_vote_needs_a_neighbour_beside_the_sample_itself() -> None:
    features, labels, ids, weights = make_data(50, 4)
    with pytest.raises(ValueError, match="neighbors must be from 1 to 3 with a coreset of 4"):
        broadcast_weights(features, labels, ids, weights, method="vote", neighbors=4)
