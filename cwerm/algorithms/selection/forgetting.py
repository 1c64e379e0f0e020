"""Forgetting: samples most often correct at the end of one epoch and wrong at the end of the next.

Source: Toneva et al., "An empirical study of example forgetting during deep neural network learning"
(ICLR 2019), section 3. There a sample is looked at when it is in the batch, here after each epoch.
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
    """The `count` most forgotten ones; those never learnt come before all others."""
    correct = values.correct
    forgotten = (correct[:, :-1] & ~correct[:, 1:]).sum(axis=1)
    never_learnt = ~correct.any(axis=1)
    scores = np.where(never_learnt, correct.shape[1], forgotten)
    return highest(scores, count, generator)
