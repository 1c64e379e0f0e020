"""The probability that a sample's label is right, learned on the coreset and a clean meta set.

A head trained on the meta set gives p(class | features) untouched by label noise. How often a label
stands for another class, the transition matrix T[class, label], is then the one unknown, and the
coreset's labels have the likelihood prod_i sum_c p(c | z_i) T[c, y_i]: maximised by EM, each step in
closed form. The head then learns from the coreset, too, with its beliefs p(class | z, label) as targets
(of each sample by a head that has not seen its label, so that no label vouches for itself), and T is
estimated again. By Bayes' rule the label y of a sample is right with probability

    w = p(y | z) T[y, y] / sum_c p(c | z) T[c, y].

The model is that of Patrini et al. (2017) and Hendrycks et al. (2018), who correct the loss by T; here it
weighs. The weight of a sample is

    w = max(0, 1 - strength * (1 - p)),        p as above,

and the strength, from 0 to 2, grows with the share of wrong labels that T shows beyond what the head's own
errors make up (the same estimate on the meta set, whose labels are right). So on good labels all weights are
about 1, and under heavy noise the weight is p(right) - p(wrong) and what is probably wrong has none: a
network that trains for long memorises whatever has any.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from cwerm.algorithms.inputs import Given, as_features, class_numbers
from cwerm.algorithms.torch_state import float32_defaults, plain_torch

__all__ = ["LabelPosterior", "estimate_transitions", "label_posterior"]

WEIGHT_DECAY = 1e-2  # of the head on standardised features; few samples, many dimensions
ITERATIONS = 60
FOLDS = 5
ROUNDS = 3
PRIOR_CORRECT, PRIOR_WRONG = 5.0, 0.1  # pseudo-counts of a class's labels: right, and any other
LARGEST_STEP = 1e-6
STRENGTH_PER_NOISE, MAX_STRENGTH = 10.0, 2.0  # chosen on validation splits, see docs/results.md
TEMPERATURES = np.geomspace(0.25, 4.0, 33)


Head = tuple[Float[Tensor, "d classes"], Float[Tensor, " classes"]]


class LabelPosterior:
    """Learns on coreset and meta set; then weighs any samples of the same features and classes."""

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        self.num_classes, self.seed = num_classes, seed

    def fit(
        self,
        features: Given,
        labels: Given,
        meta_features: Given,
        meta_labels: Given,
    ) -> LabelPosterior:
        """Fit the head on the meta set and the transition matrix on the coreset's labels.

        Features [m, d] are real numbers of any type, labels [m] class numbers below `num_classes`.

        Raises:
            ValueError: features that are no rows of finite numbers, labels that are no class numbers,
                or a class without a meta sample.
        """
        vectors, meta = as_features(features), as_features(meta_features, "meta_features")
        if vectors.shape[1] != meta.shape[1]:
            raise ValueError(
                f"features have {vectors.shape[1]} columns but meta_features {meta.shape[1]}"
            )
        numbers = class_numbers(labels, self.num_classes, len(vectors))
        meta_numbers = class_numbers(meta_labels, self.num_classes, len(meta), "meta_labels")
        with plain_torch(), float32_defaults():
            self._fit(vectors, numbers, meta, meta_numbers)
        return self

    def _fit(
        self,
        features: Float[np.ndarray, "coreset d"],
        labels: Integer[np.ndarray, " coreset"],
        meta_features: Float[np.ndarray, "meta d"],
        meta_labels: Integer[np.ndarray, " meta"],
    ) -> None:
        missing = np.setdiff1d(np.arange(self.num_classes), meta_labels)
        if len(missing):
            raise ValueError(
                f"class {missing[0]} has no sample in the meta set; give every class a few"
            )
        together = np.concatenate([features, meta_features])
        # float64 features are shifted and scaled in float64, as float32 may not tell them apart
        kept = np.float64 if together.dtype == np.float64 else np.float32
        together = together.astype(np.float64)
        self.mean = together.mean(axis=0).astype(kept)
        self.scale = (1 / np.maximum(together.std(axis=0), 1e-6)).astype(kept)
        vectors, meta = self._standardised(features), self._standardised(meta_features)
        targets = torch.eye(self.num_classes)[torch.from_numpy(meta_labels.astype(np.int64))]
        fold = self._folds(len(meta))
        unseen = torch.empty(len(meta), self.num_classes)
        for held_out, rest in fold:
            unseen[held_out] = _logits(_fit_head(meta[rest], targets[rest]), meta[held_out])
        temperature = _best_temperature(unseen, meta_labels)
        first = _probabilities(_logits(_fit_head(meta, targets), vectors) / temperature)
        transitions = estimate_transitions(first, labels)
        apparent = estimate_transitions(_probabilities(unseen / temperature), meta_labels)
        shares = np.bincount(labels, minlength=self.num_classes) / len(labels)
        right, expected = (shares @ np.diag(matrix) for matrix in (transitions, apparent))
        self.noise_rate = float(1 - right / expected)
        self.strength = float(np.clip(STRENGTH_PER_NOISE * self.noise_rate, 0, MAX_STRENGTH))
        self._learn_from_coreset(vectors, labels, meta, targets, first, transitions)

    def _learn_from_coreset(
        self,
        vectors: Float[Tensor, "coreset d"],
        labels: Integer[np.ndarray, " coreset"],
        meta: Float[Tensor, "meta d"],
        targets: Float[Tensor, "meta classes"],
        probabilities: Float[np.ndarray, "coreset classes"],
        transitions: Float[np.ndarray, "classes classes"],
    ) -> None:
        """Fit head and transition matrix anew from coreset and meta set, starting from these."""
        for _ in range(ROUNDS):
            beliefs = _beliefs(probabilities, labels, transitions)
            logits = torch.empty(len(vectors), self.num_classes)
            for held_out, rest in self._folds(len(vectors)):
                head = _fit_head(
                    torch.cat([meta, vectors[rest]]), torch.cat([targets, beliefs[rest]])
                )
                logits[held_out] = _logits(head, vectors[held_out])
            probabilities = _probabilities(logits)
            transitions = estimate_transitions(probabilities, labels)
        beliefs = _beliefs(probabilities, labels, transitions)
        self.transitions = transitions
        self.weight, self.bias = _fit_head(
            torch.cat([meta, vectors]), torch.cat([targets, beliefs])
        )

    def _folds(self, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows of each fold, and the rest."""
        fold = np.random.default_rng(self.seed).permutation(size) % FOLDS
        return [(np.flatnonzero(fold == f), np.flatnonzero(fold != f)) for f in np.unique(fold)]

    def probabilities(self, features: Given) -> Float[np.ndarray, "n classes"]:
        """p(class | features) by the head."""
        vectors = as_features(features)
        if vectors.shape[1] != len(self.mean):
            raise ValueError(
                f"features have {vectors.shape[1]} columns but fit saw {len(self.mean)}"
            )
        return _probabilities(_logits((self.weight, self.bias), self._standardised(vectors)))

    def right(self, features: Given, labels: Given) -> Float[np.ndarray, " n"]:
        """The probability that each label is right, float32 in (0, 1]."""
        probabilities = self.probabilities(features)
        numbers = class_numbers(labels, self.num_classes, len(probabilities))
        return label_posterior(probabilities, numbers, self.transitions)

    def weigh(self, features: Given, labels: Given) -> Float[np.ndarray, " n"]:
        """The weight of each sample, float32 in [0, 1]."""
        return np.maximum(0, 1 - self.strength * (1 - self.right(features, labels)))

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs to weigh as this one does."""
        return {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            "mean": torch.from_numpy(self.mean),
            "scale": torch.from_numpy(self.scale),
            "transitions": torch.from_numpy(self.transitions),
            "weight": self.weight,
            "bias": self.bias,
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> LabelPosterior:
        """The fitted object that gave `state`."""
        made = cls(num_classes=len(state["bias"]))
        made.weight, made.bias = state["weight"], state["bias"]
        made.mean, made.scale = state["mean"].numpy(), state["scale"].numpy()
        made.transitions = state["transitions"].numpy()
        made.strength = state["strength"].item()
        return made

    def _standardised(self, features: Float[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
        centred = (features.astype(self.mean.dtype) - self.mean) * self.scale
        return torch.from_numpy(centred.astype(np.float32))


def _fit_head(features: Float[Tensor, "n d"], targets: Float[Tensor, "n classes"]) -> Head:
    """Multinomial logistic regression with weight decay, convex, by L-BFGS from zero."""
    weight = torch.zeros(features.shape[1], targets.shape[1], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
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


def _logits(head: Head, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
    weight, bias = head
    return features @ weight + bias


def _probabilities(logits: Float[Tensor, "n classes"]) -> Float[np.ndarray, "n classes"]:
    return logits.softmax(1).double().numpy()


def _beliefs(
    probabilities: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    transitions: Float[np.ndarray, "classes classes"],
) -> Float[Tensor, "n classes"]:
    """p(class | features, label), by Bayes' rule."""
    joint = probabilities * transitions[:, labels].T
    return torch.from_numpy(joint / joint.sum(axis=1, keepdims=True)).float()


def _best_temperature(
    logits: Float[Tensor, "n classes"], labels: Integer[np.ndarray, " n"]
) -> float:
    """The temperature with the best likelihood of the labels."""
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
