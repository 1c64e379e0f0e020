"""Entropy: samples whose predicted class distribution is nearest to uniform.

Source: Shannon (1948); Coleman et al., "Selection via proxy" (ICLR 2020), for coresets.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.selection import Needs, highest

NEEDS: Needs = "outputs"


def choose(
    count: int, values: TrainingRecord, generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """The `count` highest entropies of the final probabilities."""
    probabilities = values.probabilities.astype(np.float64)
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return highest(-(probabilities * logarithms).sum(axis=1), count, generator)
