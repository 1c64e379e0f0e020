"""The linear view, what trusted samples calibrate, and samples of no class."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load, save
from sets import blobs, flipped

from cwerm.algorithms.detection import auroc
from cwerm.algorithms.labels import LabelPosterior, find_label_errors
from cwerm.algorithms.labels.transitions import expected, normalised
from cwerm.algorithms.labels.views import ridge
from cwerm.algorithms.labels.views.trusted import TrustedHead, best_power


def test_ridge_regression_leaves_each_sample_out_as_if_fitted_without() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 5)).astype(np.float32)
    targets = random.dirichlet(np.ones(3), 30).astype(np.float32)
    every = ridge.predict(ridge.fit_ridge(vectors, targets, np.arange(30)), vectors)
    part = ridge.leverage(vectors)[:, None]
    unseen = (every - part * targets) / (1 - part)
    inputs = np.append(vectors, np.full((30, 1), ridge.LENGTH), axis=1).astype(np.float64)
    penalty = ridge.DECAY * 30 * np.eye(6)
    for row in range(30):
        rest = np.arange(30) != row
        x = inputs[rest]
        coefficients = np.linalg.solve(x.T @ x + penalty, x.T @ targets[rest])
        np.testing.assert_allclose(unseen[row], inputs[row] @ coefficients, atol=1e-8)


def test_em_recovers_transitions_from_calibrated_beliefs() -> None:
    random = np.random.default_rng(2)
    truth = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.2, 0.8]])
    beliefs = random.dirichlet(np.full(3, 0.2), 20_000)
    classes = (random.random((20_000, 1)) > beliefs.cumsum(axis=1)).sum(axis=1)
    labels = (random.random((20_000, 1)) > truth[classes].cumsum(axis=1)).sum(axis=1)
    found = normalised(expected(beliefs, labels, np.full((3, 3), 0.1) + 0.7 * np.eye(3)))
    np.testing.assert_allclose(found, truth, atol=0.03)


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
def test_trusted_labels_tell_how_sure_the_views_should_be(power: float) -> None:
    random = np.random.default_rng(0)
    beliefs = random.dirichlet(np.full(4, 0.5), 5000) + 1e-9
    labels = (random.random((5000, 1)) > beliefs.cumsum(axis=1)).sum(axis=1)
    labels = np.minimum(labels, 3)
    assert best_power(beliefs ** (1 / power), labels) == pytest.approx(power, rel=0.1)


def test_a_head_that_knows_nothing_does_not_count() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 20)).astype(np.float32)
    labels = np.arange(40) % 4
    head = TrustedHead.fit(vectors, labels, 4)
    sure = 0.01 + 0.96 * np.eye(4)[labels]
    assert head.weight_beside(sure) == 0 or head.sharpness == 0
    single = TrustedHead.fit(vectors[:4], labels[:4], 4)
    np.testing.assert_allclose(single.predict(vectors).sum(axis=1), 1)


def test_with_trusted_samples_heavy_noise_is_measured() -> None:
    features, classes = blobs(1400, distance=4)
    labels, wrong = flipped(classes[:1200], 0.6)
    trusted = {"trusted_features": features[1200:], "trusted_labels": classes[1200:]}
    posterior = LabelPosterior(4).fit(features[:1200], labels, **trusted)
    assert posterior.noise_rate == pytest.approx(wrong.mean(), abs=0.07)
    judged = posterior.judge(features[:1200], labels, reference_rows=np.arange(1200))
    assert auroc(judged.quality, wrong) > 0.9
    again = LabelPosterior.from_state(load(save(posterior.state())))
    same = again.judge(features[:1200], labels, reference_rows=np.arange(1200))
    np.testing.assert_array_equal(same.quality, judged.quality)


@pytest.mark.parametrize("a_class", [1, 2])
def test_few_trusted_samples_open_no_gate_on_clean_labels(a_class: int) -> None:
    features, classes = blobs(600, distance=3)
    start = 4 * a_class
    result = find_label_errors(
        features[start:],
        classes[start:],
        trusted_features=features[:start],
        trusted_labels=classes[:start],
    )
    assert (result.weight == 1).all()


def test_samples_of_no_class_are_issues() -> None:
    random = np.random.default_rng(0)
    features, labels = blobs(900, classes=6, distance=6)
    strangers = np.zeros(1000, bool)
    strangers[900:] = True
    away = 0.6 * random.normal(size=(100, 12)) + 8 * random.normal(size=(1, 12)) / 12**0.5
    result = find_label_errors(
        np.concatenate([features, away.astype(np.float32)]),
        np.append(labels, random.integers(0, 6, 100)),
    )
    assert result.noise_found
    assert auroc(result.quality, strangers) > 0.9
    assert result.noise_rate == pytest.approx(0.1, abs=0.05)


def test_trusted_samples_show_that_features_tell_classes() -> None:
    """With four of five labels wrong, these look as if the features told nothing of them."""
    features, classes = blobs(1200, classes=8, distance=3.5, seed=3)
    labels, wrong = flipped(classes, 0.8, seed=3)
    assert not find_label_errors(features, labels).noise_found
    known, right = blobs(80, classes=8, distance=3.5, seed=53)
    found = find_label_errors(features, labels, trusted_features=known, trusted_labels=right)
    assert found.noise_found
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.05)


def test_wrong_labels_of_trusted_samples_are_seen_without_what_they_say_themselves() -> None:
    features, classes = blobs(900, distance=4, seed=2)
    labels, _ = flipped(classes[:800], 0.5, seed=2)
    known = classes[800:].copy()
    known[::10] = (known[::10] + 1) % 4
    posterior = LabelPosterior(4).fit(
        features[:800], labels, trusted_features=features[800:], trusted_labels=known
    )
    wrong = known != classes[800:]
    apart = posterior.judge(features[800:], known, trusted=True)
    assert auroc(apart.quality, wrong) > 0.98
    assert np.mean(apart.issue == wrong) > 0.9
    own = posterior.judge(features[800:], known)
    assert own.quality[wrong].mean() > 1.2 * apart.quality[wrong].mean(), (
        "they vouch for themselves"
    )


def test_what_is_left_out_of_the_head_is_as_if_it_had_not_been_there() -> None:
    vectors, labels = blobs(60, distance=2, seed=4)
    head = TrustedHead.fit(vectors, labels, 4)
    found = head.predict_own(vectors[:3], labels[:3], vectors)
    assert head.own is not None
    np.testing.assert_allclose(found, head.own[:3])
