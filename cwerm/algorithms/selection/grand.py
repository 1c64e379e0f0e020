"""GraNd: samples with the largest expected gradient norm early in training.

Source: Paul et al., "Deep learning on a data diet" (NeurIPS 2021), definition 2.1. There the
gradient is by all parameters and the mean over several starts; here the gradient is by the linear
last layer, for which it has the closed form ||p - y|| * ||[h, 1]||, and the mean over the early
epochs of one training.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from cwerm.algorithms.reweighting.training_record import EARLY_EPOCHS, TrainingRecord
from cwerm.algorithms.selection import Needs, highest

NEEDS: Needs = "outputs"


def choose(
    count: int, values: TrainingRecord, generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """The `count` highest mean gradient norms over the first `EARLY_EPOCHS` epochs."""
    return highest(values.gradient_norms[:, :EARLY_EPOCHS].mean(axis=1), count, generator)
