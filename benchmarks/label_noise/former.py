"""The posterior of cwerm's first version, and what it gives on all samples: rows to be beaten.

`auto` learns a head on the trusted samples, estimates T[class, label] on a coreset of 5%, and lets the
head learn from the coreset, too, with its beliefs as targets. `postAll` does so on all samples: their
256 principal components, out-of-fold predictions, a temperature fitted to the trusted samples in each
round, and the noise rate from the last T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from label_noise.heads import Head, linear_head, logits

__all__ = ["Fitted", "former_auto", "former_on_all"]

CORESET, DIMENSIONS, FOLDS, ROUNDS = 0.05, 256, 5, 3
PRIOR_CORRECT, PRIOR_WRONG = 5.0, 0.1
TEMPERATURES = np.geomspace(0.25, 4.0, 33)


class Fitted(NamedTuple):
    """Probabilities [n, classes] of each class given features and label, T, and the noise rate."""

    belief: np.ndarray
    transitions: np.ndarray
    noise_rate: float


def former_auto(
    features: np.ndarray,
    given: np.ndarray,
    trusted: tuple[np.ndarray, np.ndarray],
    classes: int,
    seed: int,
) -> Fitted:
    """Learned on a coreset of 5%, drawn within each class, and applied to all samples."""
    generator = np.random.default_rng([seed, 0, 42])
    rows = [generator.permutation(np.flatnonzero(given == c)) for c in range(classes)]
    coreset = np.concatenate([r[: max(1, round(CORESET * len(r)))] for r in rows if len(r)])
    everything = _standardised([features[coreset], trusted[0]], [features])
    vectors, known, every = everything
    start = _Start(vectors, given[coreset], known, trusted[1], classes, seed)
    probabilities, transitions = start.first, start.transitions
    targets = torch.eye(classes)[torch.from_numpy(trusted[1])]
    for _ in range(ROUNDS):
        beliefs = _beliefs(probabilities, start.labels, transitions)
        outputs = torch.empty(len(vectors), classes)
        for held_out, rest in _folds(len(vectors), seed):
            head = _joint_head(known, targets, vectors[rest], beliefs[rest])
            outputs[held_out] = logits(head, vectors[held_out])
        probabilities = outputs.softmax(1).double().numpy()
        transitions = _transitions(probabilities, start.labels)
    head = _joint_head(known, targets, vectors, _beliefs(probabilities, start.labels, transitions))
    unseen = logits(head, every).softmax(1).double().numpy()
    belief = _beliefs(unseen, given, transitions)
    return Fitted(belief, transitions, start.noise_rate(transitions=start.transitions))


def former_on_all(
    features: np.ndarray,
    given: np.ndarray,
    trusted: tuple[np.ndarray, np.ndarray],
    classes: int,
    seed: int,
) -> Fitted:
    """Learned on all samples, each judged by a head that has not seen its label."""
    both = np.concatenate([features, trusted[0]])
    if min(both.shape) > DIMENSIONS:
        both = PCA(DIMENSIONS, svd_solver="randomized", random_state=seed).fit_transform(both)
    vectors, known = _standardised([both[: len(given)], both[len(given) :]], [])
    start = _Start(vectors, given, known, trusted[1], classes, seed)
    probabilities, transitions = start.first, start.transitions
    targets = torch.eye(classes)[torch.from_numpy(trusted[1])]
    for _ in range(ROUNDS):
        beliefs = _beliefs(probabilities, given, transitions)
        outputs = torch.empty(len(vectors), classes)
        for held_out, rest in _folds(len(vectors), seed):
            head = _joint_head(known, targets, vectors[rest], beliefs[rest])
            outputs[held_out] = logits(head, vectors[held_out])
        unseen = torch.empty(len(known), classes)
        for held_out, rest in _folds(len(known), seed):
            head = _joint_head(known[rest], targets[rest], vectors, beliefs)
            unseen[held_out] = logits(head, known[held_out])
        temperature = _best_temperature(unseen, trusted[1])
        probabilities = (outputs / temperature).softmax(1).double().numpy()
        transitions = _transitions(probabilities, given)
    apparent = _transitions((unseen / temperature).softmax(1).double().numpy(), trusted[1])
    belief = _beliefs(probabilities, given, transitions)
    return Fitted(belief, transitions, start.noise_rate(transitions, apparent))


class _Start:
    """The head on the trusted samples alone, and T by it."""

    def __init__(
        self,
        vectors: Tensor,
        labels: np.ndarray,
        known: Tensor,
        known_labels: np.ndarray,
        classes: int,
        seed: int,
    ) -> None:
        self.labels, self.classes = labels, classes
        targets = torch.eye(classes)[torch.from_numpy(known_labels)]
        unseen = torch.empty(len(known), classes)
        for held_out, rest in _folds(len(known), seed):
            unseen[held_out] = logits(linear_head(known[rest], targets[rest]), known[held_out])
        temperature = _best_temperature(unseen, known_labels)
        outputs = logits(linear_head(known, targets), vectors) / temperature
        self.first = outputs.softmax(1).double().numpy()
        self.transitions = _transitions(self.first, labels)
        self.apparent = _transitions(
            (unseen / temperature).softmax(1).double().numpy(), known_labels
        )

    def noise_rate(self, transitions: np.ndarray, apparent: np.ndarray | None = None) -> float:
        """1 - diag(T) over what the head's own errors make up, weighted by the labels' shares."""
        shares = np.bincount(self.labels, minlength=self.classes) / len(self.labels)
        expected = shares @ np.diag(self.apparent if apparent is None else apparent)
        return float(1 - shares @ np.diag(transitions) / expected)


def _standardised(fitted: list[np.ndarray], others: list[np.ndarray]) -> list[Tensor]:
    together = np.concatenate(fitted).astype(np.float64)
    mean, scale = together.mean(axis=0), np.maximum(together.std(axis=0), 1e-6)
    parts = [*fitted, *others]
    return [torch.from_numpy(((part - mean) / scale).astype(np.float32)) for part in parts]


def _folds(size: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    fold = np.random.default_rng(seed).permutation(size) % FOLDS
    return [(np.flatnonzero(fold == f), np.flatnonzero(fold != f)) for f in np.unique(fold)]


def _joint_head(known: Tensor, targets: Tensor, vectors: Tensor, beliefs: np.ndarray) -> Head:
    soft = torch.from_numpy(beliefs).float()
    return linear_head(torch.cat([known, vectors]), torch.cat([targets, soft]))


def _beliefs(probabilities: np.ndarray, labels: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    joint = probabilities * transitions[:, labels].T
    return joint / joint.sum(axis=1, keepdims=True)


def _best_temperature(outputs: Tensor, labels: np.ndarray) -> float:
    targets = torch.from_numpy(labels)
    losses = [functional.cross_entropy(outputs / t, targets).item() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def _transitions(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    classes = probabilities.shape[1]
    prior = np.full((classes, classes), PRIOR_WRONG)
    np.fill_diagonal(prior, PRIOR_CORRECT)
    one_hot = np.eye(classes)[labels]
    transitions = prior / prior.sum(axis=1, keepdims=True)
    for _ in range(500):
        share = _beliefs(probabilities, labels, transitions)
        counts = share.T @ one_hot + prior
        updated = counts / counts.sum(axis=1, keepdims=True)
        step = np.abs(updated - transitions).max()
        transitions = updated
        if step < 1e-6:
            break
    return transitions
