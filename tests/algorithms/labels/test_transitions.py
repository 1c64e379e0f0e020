"""Transitions, the gate's likelihood and the weights against plain references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cwerm.algorithms.labels.calibration import calibrated, fit_shift
from cwerm.algorithms.labels.gate import check_noise, mixture_rate
from cwerm.algorithms.labels.transitions import (
    anchor_counts,
    anchor_rate,
    posterior,
    shrunk,
)
from cwerm.algorithms.labels.views.together import neighbours_for, shares
from cwerm.algorithms.labels.weights import borders, class_scales, raw_weights


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 5))
def test_anchors_are_the_surest_of_each_class(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    beliefs = random.dirichlet(np.ones(classes), 150)
    labels = random.integers(0, classes, 150)
    expected = np.zeros((classes, classes))
    for number in range(classes):
        rows = np.flatnonzero(beliefs.argmax(1) == number)
        surest = rows[np.argsort(-beliefs[rows, number])][: int(max(10, np.ceil(0.2 * len(rows))))]
        for row in surest:
            expected[number, labels[row]] += 1
    np.testing.assert_array_equal(anchor_counts(beliefs, labels), expected)


def test_anchors_that_are_equally_sure_count_alike_whatever_their_order() -> None:
    """As of a model that gives each class one probability; sorted by label, the first would not do."""
    labels = np.repeat([0, 1], [80, 20])
    beliefs = np.tile([0.9, 0.1], (100, 1))
    np.testing.assert_allclose(anchor_counts(beliefs, labels), [[16, 4], [0, 0]])
    beliefs[:5] = [0.95, 0.05]  # these come first, and share 15 places with the others
    expected = [[5 + 15 * 75 / 95, 15 * 20 / 95], [0, 0]]
    np.testing.assert_allclose(anchor_counts(beliefs, labels), expected)


def test_bayes_rule_sample_by_sample() -> None:
    random = np.random.default_rng(0)
    beliefs, transitions = random.dirichlet(np.ones(4), 30), random.dirichlet(np.ones(4), 4)
    labels = random.integers(0, 4, 30)
    found = posterior(beliefs, labels, transitions)
    for i, label in enumerate(labels):
        joint = [beliefs[i, c] * transitions[c, label] for c in range(4)]
        np.testing.assert_allclose(found[i], np.array(joint) / sum(joint))


@pytest.mark.parametrize(("flipped", "rate"), [(range(5), 0.4), (range(1), 0.8)])
def test_the_rate_is_weighed_by_classes_not_by_labels(flipped: range, rate: float) -> None:
    """Pair noise in some of ten classes alone: .20 of all labels, and .08."""
    transitions = np.eye(10)
    for number in flipped:
        transitions[number, number], transitions[number, (number + 1) % 10] = 1 - rate, rate
    found = anchor_rate(transitions, np.full(10, 0.1))
    assert found == pytest.approx(rate * len(flipped) / 10)


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_pseudo_counts_do_not_grow_with_the_classes(classes: int) -> None:
    counts = np.zeros((classes, classes))
    np.fill_diagonal(counts, 9)
    counts[0, 0], counts[0, 1] = 6, 3
    found = shrunk(counts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.diag(found)[1:].min() > 0.94
    assert 0.24 < found[0, 1] < 0.34


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.5])
def test_the_mixture_has_the_best_likelihood(rate: float) -> None:
    random = np.random.default_rng(3)
    chances = random.dirichlet(np.full(5, 0.2), 2000)
    labels = np.array([random.choice(5, p=p) for p in chances])
    anew = random.random(2000) < rate
    labels = np.where(anew, (labels + random.integers(1, 5, 2000)) % 5, labels)
    softer = np.sqrt(chances + 1e-6)
    softer /= softer.sum(1, keepdims=True)
    found, evidence = mixture_rate(softer, labels)

    def loss(parameters: np.ndarray) -> float:
        sharp = (softer + 1e-9) ** parameters[0]
        given = (sharp / sharp.sum(1, keepdims=True))[np.arange(2000), labels]
        return -np.log((1 - parameters[1]) * given + parameters[1] * (1 - given) / 4 + 1e-12).sum()

    bounds = [(0.4, 3), (0, 0.9)]
    best = minimize(loss, np.array([1.0, 0.2]), bounds=bounds)
    plain = minimize(lambda s: loss(np.array([s[0], 0])), np.array([1.0]), bounds=bounds[:1])
    assert found == pytest.approx(best.x[1], abs=0.04)
    assert found == pytest.approx(rate, abs=0.05)
    assert evidence == pytest.approx(plain.fun - best.fun, abs=4)


def test_beliefs_that_say_nothing_open_no_gate() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        beliefs = random.dirichlet(np.full(10, 0.3), 1000)
        gate = check_noise(beliefs, beliefs, random.integers(0, 10, 1000))
        assert not gate.open
        assert not gate.informative


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_every_class_keeps_weight_and_no_scale_passes_its_bound(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 80)
    quality = random.random(80) ** random.uniform(0.2, 5)
    quality[labels == 2] *= 0.4
    border, rescued = borders(quality, labels, 5)
    raw = raw_weights(quality, labels, border)
    totals = np.bincount(labels, raw, minlength=5)
    assert (totals[np.unique(labels)] > 0).all()
    assert bool(rescued[2]) == bool((labels == 2).any())
    priors = random.dirichlet(np.ones(5))
    scale = class_scales(raw, labels, priors)
    assert (raw * scale[labels]).mean() == pytest.approx(1)
    assert scale.max() / scale.min() <= 4 + 1e-9


def test_a_class_of_mostly_wrong_labels_does_not_get_their_weight_back() -> None:
    """900 samples of one class, of whose labels 90 name another, rare one of 10."""
    labels = np.repeat([0, 1, 1], [810, 90, 10])
    quality = np.repeat([0.99, 0.02, 0.95], [810, 90, 10])
    border, _ = borders(quality, labels, 2)
    raw = raw_weights(quality, labels, border)
    weight = raw * class_scales(raw, labels, np.array([900, 10]) / 910)[labels]
    assert weight[labels == 1].sum() / weight.sum() == pytest.approx(10 / 910, rel=0.2)


@settings(deadline=None, max_examples=20)
@given(rate=st.floats(0.001, 0.9), seed=st.integers(0, 1000))
def test_quality_has_the_mean_of_the_rate_and_keeps_its_order(rate: float, seed: int) -> None:
    chances = np.sort(np.random.default_rng(seed).beta(3, 1, 300))
    quality = calibrated(chances, 1.0, fit_shift(chances, 1.0, rate))
    assert quality.mean() == pytest.approx(1 - rate, abs=1e-6)
    assert (np.diff(quality) >= 0).all()


def test_shares_of_neighbours_by_a_loop_and_none_without() -> None:
    random = np.random.default_rng(0)
    targets = random.dirichlet(np.ones(3), 20).astype(np.float32)
    near = random.integers(0, 20, (6, 4))
    near[1, 2:] = -1
    near[2] = -1
    found = shares(targets, near)
    np.testing.assert_allclose(found[0], targets[near[0]].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[1], targets[near[1, :2]].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[2], 1 / 3)


def test_fewer_neighbours_where_classes_are_small() -> None:
    sizes = [neighbours_for(np.repeat(np.arange(5), size)) for size in (1, 9, 30, 500)]
    assert sizes == [5, 5, 10, 20]
