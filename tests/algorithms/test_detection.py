from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cwerm.algorithms.detection import (
    auroc,
    class_weight_ratio,
    class_weight_shares,
    effective_sample_size,
    precision_at_errors,
)

# few distinct weights, so that ties are common
samples = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


def unzip(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([w for w, _ in pairs], np.float32) / 4, np.array([m for _, m in pairs])


@settings(deadline=None)
@given(samples)
def test_auroc_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    weights, mislabelled = unzip(pairs)
    if mislabelled.all() or not mislabelled.any():
        with pytest.raises(ValueError, match="AUROC needs both"):
            auroc(weights, mislabelled)
        return
    assert auroc(weights, mislabelled) == pytest.approx(roc_auc_score(~mislabelled, weights))


def test_auroc_of_many_samples() -> None:
    generator = np.random.default_rng(0)
    mislabelled = generator.random(20_000) < 0.3
    weights = generator.random(20_000) * np.where(mislabelled, 0.7, 1.0)
    assert auroc(weights, mislabelled) == pytest.approx(roc_auc_score(~mislabelled, weights))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=7))
def test_precision_is_the_mean_over_all_orders_of_equal_weights(
    pairs: list[tuple[int, bool]],
) -> None:
    weights, mislabelled = unzip(pairs)
    count = int(mislabelled.sum())
    if count == 0:
        with pytest.raises(ValueError, match="no sample is mislabelled"):
            precision_at_errors(weights, mislabelled)
        return
    orders = itertools.permutations(range(len(weights)))
    hits = [mislabelled[sorted(order, key=lambda i: weights[i])[:count]].mean() for order in orders]
    assert precision_at_errors(weights, mislabelled) == pytest.approx(np.mean(hits))


def test_constant_weights_know_nothing() -> None:
    mislabelled = np.arange(50) % 5 == 0
    assert auroc(np.ones(50), mislabelled) == 0.5
    assert precision_at_errors(np.ones(50), mislabelled) == pytest.approx(0.2)
    assert auroc(1.0 - mislabelled, mislabelled) == 1
    assert precision_at_errors(1.0 - mislabelled, mislabelled) == 1


@given(
    st.lists(st.floats(0, 1e30), min_size=1, max_size=30).filter(lambda w: max(w) > 1e-30),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_effective_sample_size(weights: list[float], scale: float) -> None:
    share = effective_sample_size(np.array(weights) * scale)
    # 1 / (1 + squared coefficient of variation)
    unit = [w / max(weights) for w in weights]
    mean = math.fsum(unit) / len(unit)
    variation = math.fsum((w - mean) ** 2 for w in unit) / len(unit) / mean**2
    assert share == pytest.approx(1 / (1 + variation), rel=1e-9)
    assert 1 / len(weights) * (1 - 1e-12) <= share <= 1 + 1e-12


def test_effective_sample_size_of_selections() -> None:
    kept = (np.arange(100) < 37).astype(np.float32)
    assert effective_sample_size(kept) == pytest.approx(0.37)
    assert effective_sample_size(np.full(9, 1e-30, np.float32)) == pytest.approx(1)


def test_class_weights() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3])
    weights = np.array([1, 2, 3, 2, 0, 0.5], np.float32)
    shares = class_weight_shares(weights, labels)
    np.testing.assert_allclose(shares, np.array([6, 2, 0, 0.5]) / 8.5)
    assert class_weight_ratio(weights, labels) == pytest.approx(12)
    assert class_weight_ratio(np.ones(6), labels) == pytest.approx(3)
    assert class_weight_ratio(np.array([1, 1, 1, 0, 1, 1.0]), labels) == math.inf


def test_unusable_weights() -> None:
    labels = np.array([0, 1, 1])
    for bad in ([1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="none below 0 and not all 0"):
            effective_sample_size(np.array(bad))
        with pytest.raises(ValueError, match="none below 0 and not all 0"):
            class_weight_ratio(np.array(bad), labels)
    broken = np.array([1.0, math.nan, math.inf])
    for call in (
        lambda: effective_sample_size(broken),
        lambda: class_weight_shares(broken, labels),
        lambda: auroc(broken, labels == 1),
        lambda: precision_at_errors(broken, labels == 1),
    ):
        with pytest.raises(ValueError, match="weight of sample 1 is NaN or infinite"):
            call()
    with pytest.raises(ValueError, match="at least one number"):
        effective_sample_size(np.array([]))
