"""What a few trusted samples say: a head of their own, that no wrong label has touched."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cwerm.algorithms.labels import ridge

__all__ = ["TrustedHead"]

SHARPNESS = np.concatenate([[0.0], np.geomspace(0.5, 50, 30)])


class TrustedHead:
    """Ridge regression on the trusted samples, as sharp as those left out tell; as flat as none if they
    tell nothing."""

    def __init__(
        self,
        coefficients: Float64[np.ndarray, "inputs classes"],
        sharpness: float,
    ) -> None:
        self.coefficients, self.sharpness = coefficients, sharpness

    @classmethod
    def fit(
        cls, vectors: Float32[np.ndarray, "t d"], labels: Int64[np.ndarray, " t"], classes: int
    ) -> TrustedHead:
        """Learn from trusted samples; a class of one sample has nothing left where that is left out."""
        targets = np.eye(classes, dtype=np.float32)[labels]
        coefficients = ridge.fit_ridge(vectors, targets, np.arange(len(vectors)))
        part = ridge.leverage(vectors)[:, None]
        unseen = (ridge.predict(coefficients, vectors) - part * targets) / (1 - part)
        rows = np.arange(len(labels))
        best = max(SHARPNESS, key=lambda s: np.log(_softmax(s * unseen)[rows, labels]).sum())
        return cls(coefficients, float(best))

    def predict(self, vectors: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n classes"]:
        """p(class | features)."""
        return _softmax(self.sharpness * ridge.predict(self.coefficients, vectors))

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


def _softmax(logits: Float64[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
