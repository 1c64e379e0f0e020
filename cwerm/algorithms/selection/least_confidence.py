"""Least confidence: samples whose most probable class is least probable.

Source: Lewis and Gale, "A sequential algorithm for training text classifiers" (SIGIR 1994); Coleman
et al., "Selection via proxy" (ICLR 2020), for coresets.
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
    """The `count` lowest maxima of the final probabilities."""
    return highest(-values.probabilities.max(axis=1), count, generator)
