"""What a few trusted samples say: a head of their own, that no wrong label has touched."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cwerm.algorithms.labels import ridge

__all__ = ["TrustedHead", "best_power"]

USUAL_POWER, POWER_SPREAD = 0.45, 0.2
WEIGHT = 0.5  # a view of few samples counts half
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
    ) -> None:
        self.coefficients, self.sharpness, self.own = coefficients, sharpness, own

    @classmethod
    def fit(
        cls, vectors: Float32[np.ndarray, "t d"], labels: Int64[np.ndarray, " t"], classes: int
    ) -> TrustedHead:
        """Learn from trusted samples; `own` is what the rest of them say of each.

        A class of one sample has nothing left where that is left out.
        """
        targets = np.eye(classes, dtype=np.float32)[labels]
        coefficients = ridge.fit_ridge(vectors, targets, np.arange(len(vectors)))
        part = ridge.leverage(vectors)[:, None]
        unseen = (ridge.predict(coefficients, vectors) - part * targets) / (1 - part)
        rows = np.arange(len(labels))
        best = max(SHARPNESS, key=lambda s: np.log(_softmax(s * unseen)[rows, labels]).sum())
        return cls(coefficients, float(best), _softmax(WEIGHT * best * unseen))

    def predict(self, vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n classes"]:
        """p(class | features), softened, as it comes from few samples."""
        return _softmax(WEIGHT * self.sharpness * ridge.predict(self.coefficients, vectors))

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


def best_power(joint: Float64[np.ndarray, "t classes"], labels: Int64[np.ndarray, " t"]) -> float:
    """The power of what is said of the trusted samples that makes their labels likeliest.

    Near to what is usual where there are few of them.
    """
    logarithms, rows = np.log(joint), np.arange(len(labels))

    def score(power: float) -> float:
        surprise = (np.log(power / USUAL_POWER) / POWER_SPREAD) ** 2 / 2
        return float(np.log(_softmax(power * logarithms)[rows, labels]).sum() - surprise)

    return float(max(POWERS, key=score))


def _softmax(logits: Float64[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
