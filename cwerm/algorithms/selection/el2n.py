"""EL2N: samples with the largest error ||p - y|| early in training, with y one-hot.

Source: Paul et al., "Deep learning on a data diet" (NeurIPS 2021), definition 2.3. There the mean is
over several starts at one early epoch, here over the early epochs of one training.
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
    """The `count` highest mean errors over the first `EARLY_EPOCHS` epochs."""
    return highest(values.errors[:, :EARLY_EPOCHS].mean(axis=1), count, generator)
