"""The probability that a sample's label is right, learned on the coreset and a clean meta set.

A head trained on the meta set gives p(class | features) untouched by label noise. How often a label
stands for another class, the transition matrix T[class, label], is then the one unknown, and the
coreset's labels have the likelihood prod_i sum_c p(c | z_i) T[c, y_i]: maximised by EM, each step in
closed form. By Bayes' rule the label y of a sample is right with probability

    w = p(y | z) T[y, y] / sum_c p(c | z) T[c, y].

Where labels are good T is near the identity and every weight near 1, whatever the head thinks of the
sample; where they are not, weights follow the head. So nothing needs to be tuned to the noise. The model
is that of Patrini et al. (2017) and Hendrycks et al. (2018), who correct the loss by T; here it weighs.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from cwerm.algorithms.medians import check_finite

__all__ = ["LabelPosterior", "estimate_transitions", "label_posterior"]

WEIGHT_DECAY = 1e-2  # of the head on standardised features; few samples, many dimensions
ITERATIONS = 60
FOLDS = 5
PRIOR_CORRECT, PRIOR_WRONG = 5.0, 0.1  # pseudo-counts of a class's labels: right, and any other
LARGEST_STEP = 1e-6
TEMPERATURES = np.geomspace(0.25, 4.0, 33)


class LabelPosterior:
    """Learns on coreset and meta set; then weighs any samples of the same features and classes."""

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        self.num_classes, self.seed = num_classes, seed

    def fit(
        self,
        features: Float[np.ndarray, "coreset d"],
        labels: Integer[np.ndarray, " coreset"],
        meta_features: Float[np.ndarray, "meta d"],
        meta_labels: Integer[np.ndarray, " meta"],
    ) -> LabelPosterior:
        """Fit the head on the meta set and the transition matrix on the coreset's labels.

        Raises:
            ValueError: features with NaN, or a class without a meta sample.
        """
        check_finite(features)
        check_finite(meta_features)
        missing = np.setdiff1d(np.arange(self.num_classes), meta_labels)
        if len(missing):
            raise ValueError(
                f"class {missing[0]} has no sample in the meta set; give every class a few"
            )
        together = np.concatenate([features, meta_features]).astype(np.float32)
        self.mean = together.mean(axis=0)
        self.scale = 1 / np.maximum(together.std(axis=0), 1e-6)
        meta = self._standardised(meta_features)
        self.temperature = self._calibrate(meta, meta_labels)
        self.weight, self.bias = self._fit_head(meta, meta_labels)
        self.transitions = estimate_transitions(self.probabilities(features), labels)
        return self

    def probabilities(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n classes"]:
        """p(class | features) by the meta set's head, calibrated."""
        logits = self._standardised(features) @ self.weight + self.bias
        return (logits / self.temperature).softmax(1).double().numpy()

    def weigh(
        self, features: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """The probability that each label is right, float32 in (0, 1]."""
        return label_posterior(self.probabilities(features), labels, self.transitions)

    def _standardised(self, features: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
        return torch.from_numpy((features.astype(np.float32) - self.mean) * self.scale)

    def _fit_head(
        self, features: Float[Tensor, "n d"], labels: Integer[np.ndarray, " n"]
    ) -> tuple[Float[Tensor, "d classes"], Float[Tensor, " classes"]]:
        """Multinomial logistic regression with weight decay, convex, by L-BFGS from zero."""
        weight = torch.zeros(features.shape[1], self.num_classes, requires_grad=True)
        bias = torch.zeros(self.num_classes, requires_grad=True)
        targets = torch.from_numpy(labels.astype(np.int64))
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = functional.cross_entropy(features @ weight + bias, targets)
            value = value + WEIGHT_DECAY * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return weight.detach(), bias.detach()

    def _calibrate(
        self, features: Float[Tensor, "meta d"], labels: Integer[np.ndarray, " meta"]
    ) -> float:
        """The temperature with the best likelihood on held-out folds of the meta set."""
        fold = np.random.default_rng(self.seed).permutation(len(labels)) % FOLDS
        logits = torch.empty(len(labels), self.num_classes)
        for held_out in range(FOLDS):
            rows = fold == held_out
            if not rows.any():
                continue
            weight, bias = self._fit_head(features[~rows], labels[~rows])
            logits[rows] = features[rows] @ weight + bias
        targets = torch.from_numpy(labels.astype(np.int64))
        losses = [functional.cross_entropy(logits / t, targets).item() for t in TEMPERATURES]
        return float(TEMPERATURES[int(np.argmin(losses))])


def estimate_transitions(
    probabilities: Float[np.ndarray, "m classes"],
    labels: Integer[np.ndarray, " m"],
    max_steps: int = 500,
) -> Float[np.ndarray, "classes classes"]:
    """T[class, label], rows of sum 1: the EM estimate given p(class | features) of m samples.

    A few pseudo-counts favour right labels, so that a class with few samples is not condemned.
    """
    num_classes = probabilities.shape[1]
    prior = np.full((num_classes, num_classes), PRIOR_WRONG)
    np.fill_diagonal(prior, PRIOR_CORRECT)
    one_hot = np.eye(num_classes)[labels]
    transitions = prior / prior.sum(axis=1, keepdims=True)
    for _ in range(max_steps):
        share = probabilities * transitions[:, labels].T
        share /= share.sum(axis=1, keepdims=True)
        counts = share.T @ one_hot + prior
        updated = counts / counts.sum(axis=1, keepdims=True)
        step = np.abs(updated - transitions).max()
        transitions = updated
        if step < LARGEST_STEP:
            break
    return transitions


def label_posterior(
    probabilities: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    transitions: Float[np.ndarray, "classes classes"],
) -> Float[np.ndarray, " n"]:
    """The probability that the given label is the true class, float32; Bayes' rule."""
    joint = probabilities * transitions[:, labels].T
    rows = np.arange(len(labels))
    return (joint[rows, labels] / joint.sum(axis=1)).astype(np.float32)
