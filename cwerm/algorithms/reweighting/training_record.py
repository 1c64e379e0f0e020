"""What a short training showed of each sample; apart from the training, as reading it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

__all__ = ["EARLY_EPOCHS", "TrainingRecord"]

EARLY_EPOCHS = 5  # that EL2N and GraNd look at


@dataclass(frozen=True)
class TrainingRecord:
    """What a training showed of n samples, measured in eval mode at the end of each epoch.

    `probabilities`: softmax after the last epoch. `errors`: ||p - y||, with y one-hot.
    `gradient_norms`: length of the loss's gradient by the last layer's weight and bias. `correct`:
    whether the given label had the highest probability. Memory n * (classes + 2.25 epochs) floats.
    """

    probabilities: Float[np.ndarray, "n classes"]
    errors: Float[np.ndarray, "n epochs"]
    gradient_norms: Float[np.ndarray, "n epochs"]
    correct: Bool[np.ndarray, "n epochs"]

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, ids: Integer[np.ndarray, " group"]) -> TrainingRecord:
        """The record of these samples alone, in this order."""
        return TrainingRecord(
            self.probabilities[ids], self.errors[ids], self.gradient_norms[ids], self.correct[ids]
        )
