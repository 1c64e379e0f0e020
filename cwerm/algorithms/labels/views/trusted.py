"""What a few trusted samples say: a head of their own, that no wrong label has touched."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cwerm.algorithms.labels.views import ridge

__all__ = ["TrustedHead", "best_power"]

USUAL_POWER, POWER_SPREAD = 0.45, 0.2
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR = 0.01
POWERS = np.geomspace(0.1, 2, 40)
SHARPNESS = np.concatenate([[0.0], np.geomspace(0.5, 50, 30)])


class TrustedHead:
    """Ridge regression on the trusted samples, as sharp as those left out tell; as flat as none if they
    tell nothing."""

    def __init__(
        self,
        coefficients: Float64[np.ndarray, "inputs classes"],
        sharpness: float,
        own: Float64[np.ndarray, "t classes"] | None = None,
        labels: Int64[np.ndarray, " t"] | None = None,
    ) -> None:
        self.coefficients, self.sharpness = coefficients, sharpness
        self.own, self.labels = own, labels

    @classmethod
    def fit(
        cls, vectors: Float32[np.ndarray, "t d"], labels: Int64[np.ndarray, " t"], classes: int
    ) -> TrustedHead:
        """Learn from trusted samples; `own` is what the rest of them say of each.

        A class of one sample has nothing left where that is left out.
        """
        targets = np.eye(classes, dtype=np.float32)[labels]
        coefficients = ridge.fit_ridge(vectors, targets, np.arange(len(vectors)))
        unseen = _unseen(coefficients, vectors, labels, vectors)
        rows = np.arange(len(labels))
        best = max(SHARPNESS, key=lambda s: np.log(_softmax(s * unseen)[rows, labels]).sum())
        return cls(coefficients, float(best), _softmax(best * unseen), labels)

    def predict(self, vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n classes"]:
        """p(class | features)."""
        return _softmax(self.sharpness * ridge.predict(self.coefficients, vectors))

    def predict_own(
        self,
        vectors: Float32[np.ndarray, "n d"],
        labels: Int64[np.ndarray, " n"],
        fitted: Float32[np.ndarray, "t d"],
    ) -> Float64[np.ndarray, "n classes"]:
        """p(class | features) of some of the samples that were ``fitted``, by all others of these."""
        return _softmax(self.sharpness * _unseen(self.coefficients, vectors, labels, fitted))

    def weight_beside(self, joint: Float64[np.ndarray, "t classes"]) -> float:
        """How much the head counts beside what other views say of the trusted samples, 0 to 1.

        The weight with which their labels are likeliest; `own` is fair, as each sample was left out.
        """
        assert self.own is not None
        assert self.labels is not None
        own, labels = self.own + FLOOR, self.labels
        return max(WEIGHTS, key=lambda w: _best_score(joint * own**w, labels)[0])

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return {
            "coefficients": torch.from_numpy(self.coefficients.copy()),
            "sharpness": torch.tensor(self.sharpness, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> TrustedHead:
        """The one that gave `state`."""
        return cls(state["coefficients"].numpy(), float(state["sharpness"]))


def _unseen(
    coefficients: Float64[np.ndarray, "inputs classes"],
    vectors: Float32[np.ndarray, "n d"],
    labels: Int64[np.ndarray, " n"],
    fitted: Float32[np.ndarray, "t d"],
) -> Float64[np.ndarray, "n classes"]:
    """Outputs for some of the fitted samples, each left out."""
    targets = np.eye(coefficients.shape[1])[labels]
    part = ridge.leverage(vectors, fitted)[:, None]
    return (ridge.predict(coefficients, vectors) - part * targets) / (1 - part)


def best_power(joint: Float64[np.ndarray, "t classes"], labels: Int64[np.ndarray, " t"]) -> float:
    """The power of what is said of the trusted samples that makes their labels likeliest.

    Near to what is usual where there are few of them.
    """
    return _best_score(joint, labels)[1]


def _best_score(
    joint: Float64[np.ndarray, "t classes"], labels: Int64[np.ndarray, " t"]
) -> tuple[float, float]:
    """The largest penalised log-likelihood, and the power it has."""
    logarithms, rows = np.log(joint), np.arange(len(labels))

    def score(power: float) -> float:
        surprise = (np.log(power / USUAL_POWER) / POWER_SPREAD) ** 2 / 2
        return float(np.log(_softmax(power * logarithms)[rows, labels]).sum() - surprise)

    return max((score(float(power)), float(power)) for power in POWERS)


def _softmax(logits: Float64[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
