from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cwerm.algorithms import posterior
from cwerm.algorithms.corrupt import corrupt_labels
from cwerm.algorithms.posterior import LabelPosterior, estimate_transitions, label_posterior


def test_bayes_rule_sample_by_sample() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 30)
    transitions = random.dirichlet(np.ones(4), 4)
    labels = random.integers(0, 4, 30)
    weights = label_posterior(probabilities, labels, transitions)
    for i, label in enumerate(labels):
        evidence = sum(probabilities[i, c] * transitions[c, label] for c in range(4))
        expected = probabilities[i, label] * transitions[label, label] / evidence
        assert weights[i] == pytest.approx(expected, rel=1e-6)


def test_em_finds_the_penalised_maximum_of_the_likelihood() -> None:
    random = np.random.default_rng(1)
    classes, samples = 3, 400
    probabilities = random.dirichlet(np.full(classes, 0.5), samples)
    labels = random.integers(0, classes, samples)
    prior = np.full((classes, classes), posterior.PRIOR_WRONG)
    np.fill_diagonal(prior, posterior.PRIOR_CORRECT)

    def loss(logits: np.ndarray) -> float:
        transitions = softmax(logits.reshape(classes, classes), axis=1)
        likelihood = (probabilities * transitions[:, labels].T).sum(axis=1)
        return -np.log(likelihood).sum() - (prior * np.log(transitions)).sum()

    best = minimize(loss, np.zeros(classes**2), method="BFGS", options={"gtol": 1e-8})
    expected = softmax(best.x.reshape(classes, classes), axis=1)
    found = estimate_transitions(probabilities, labels, max_steps=20_000)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 6))
def test_transitions_are_distributions(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), 50)
    found = estimate_transitions(probabilities, random.integers(0, classes, 50))
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_known_transition_matrix_is_recovered() -> None:
    random = np.random.default_rng(2)
    truth = np.array([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.2, 0.8]])
    classes = random.integers(0, 3, 20_000)
    labels = np.array([random.choice(3, p=truth[c]) for c in classes])
    certainty = np.full((len(classes), 3), 0.05)
    certainty[np.arange(len(classes)), classes] = 0.9
    guessed = np.array([random.choice(3, p=p) for p in certainty])
    probabilities = np.full((len(classes), 3), 0.05)  # right in 90 % of the cases: calibrated
    probabilities[np.arange(len(classes)), guessed] = 0.9
    np.testing.assert_allclose(estimate_transitions(probabilities, labels), truth, atol=0.03)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    features, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    meta = np.concatenate([order[classes[order] == c][:10] for c in range(10)])
    rest = np.setdiff1d(order, meta)
    return features[rest], classes[rest], features[meta], classes[meta]


def test_the_head_is_scikit_learns_logistic_regression(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, _, meta, classes = digits
    features = torch.from_numpy(((meta - meta.mean(0)) / (meta.std(0) + 1)).astype(np.float32))
    weight, bias = posterior._fit_head(features, torch.eye(10)[classes])
    strength = 1 / (2 * posterior.WEIGHT_DECAY * len(meta))
    peer = LogisticRegression(C=strength, max_iter=2000, tol=1e-8).fit(features, classes)
    found = (features @ weight + bias).softmax(1).numpy()
    np.testing.assert_allclose(found, peer.predict_proba(features), atol=5e-3)


@pytest.mark.parametrize(("kind", "least"), [("symmetric", 0.93), ("flip", 0.95)])
def test_wrong_labels_get_low_weights_whatever_the_noise(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], kind: str, least: float
) -> None:
    features, classes, meta, meta_classes = digits
    labels = corrupt_labels(classes, kind, 0.4, 10, seed=1)
    coreset = np.random.default_rng(3).choice(len(labels), 300, replace=False)
    learned = LabelPosterior(10).fit(features[coreset], labels[coreset], meta, meta_classes)
    assert roc_auc_score(labels == classes, learned.right(features, labels)) > least
    assert 0.25 < learned.noise_rate < 0.45  # the pseudo-counts make it low
    assert learned.strength == posterior.MAX_STRENGTH
    weights = learned.weigh(features, labels)
    assert weights[labels != classes].mean() < 0.15 * weights[labels == classes].mean()


def test_the_weight_is_linear_in_the_probability_and_never_negative(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, classes, meta, meta_classes = digits
    labels = corrupt_labels(classes, "symmetric", 0.4, 10, seed=1)
    learned = LabelPosterior(10).fit(features[:300], labels[:300], meta, meta_classes)
    right = learned.right(features, labels).astype(np.float64)
    for strength in (0.0, 0.7, 2.0):
        learned.strength = strength
        expected = [max(0.0, 1 - strength * (1 - p)) for p in right]
        np.testing.assert_allclose(learned.weigh(features, labels), expected, atol=1e-6)


def test_the_state_weighs_as_the_fitted_object(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, classes, meta, meta_classes = digits
    labels = corrupt_labels(classes, "flip", 0.3, 10, seed=1)
    learned = LabelPosterior(10).fit(features[:300], labels[:300], meta, meta_classes)
    restored = LabelPosterior.from_state(learned.state())
    expected = learned.weigh(features, labels)
    np.testing.assert_array_equal(restored.weigh(features, labels), expected)


def test_good_labels_get_even_weights(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, classes, meta, meta_classes = digits
    learned = LabelPosterior(10).fit(features[:300], classes[:300], meta, meta_classes)
    weights = learned.weigh(features, classes)
    assert weights.sum() ** 2 / (weights**2).sum() > 0.95 * len(weights)
    assert weights.mean() > 0.9
    assert abs(learned.noise_rate) < 0.07


def test_a_class_without_meta_samples_is_named(
    digits: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, classes, meta, meta_classes = digits
    kept = meta_classes != 7
    with pytest.raises(ValueError, match="class 7 has no sample in the meta set"):
        LabelPosterior(10).fit(features, classes, meta[kept], meta_classes[kept])
