"""All weights 1: training on the coreset as it is, or what others are compared with."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cwerm.methods.reweighting import Learned, Reweighting
from cwerm.methods.samples import Run, Samples


class LearnedNothing(Learned):
    """Weights of 1."""

    def __init__(self, samples: int) -> None:
        self.weights, self.losses = np.ones(samples, np.float32), np.zeros(samples, np.float32)
        self.found = {}


class Uniform(Reweighting):
    """A weight of 1 for each sample."""

    method: Literal["uniform"] = "uniform"
    """1 for each."""

    @property
    def reads(self) -> Literal["labels"]:
        """Nothing of the images."""
        return "labels"

    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> LearnedNothing:
        """Nothing."""
        return LearnedNothing(len(reference.labels))
