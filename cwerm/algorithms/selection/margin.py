"""Margin: samples whose two most probable classes are nearest to each other.

Source: Scheffer et al., "Active hidden Markov models for information extraction" (IDA 2001);
Coleman et al., "Selection via proxy" (ICLR 2020), for coresets.
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
    """The `count` smallest gaps between the two highest final probabilities."""
    second, first = np.partition(values.probabilities, -2, axis=1)[:, -2:].T
    return highest(second - first, count, generator)
