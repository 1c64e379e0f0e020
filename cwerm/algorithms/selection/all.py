"""All samples: no coreset at all, for reweighting on the whole data set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Integer

from cwerm.algorithms.selection import Needs

NEEDS: Needs = "labels"


def choose(
    count: int, values: Integer[np.ndarray, "group"], generator: np.random.Generator
) -> Int[np.ndarray, "{count}"]:
    """Every sample of the group; ValueError if `count` is not their number."""
    if count != len(values):
        raise ValueError(f"method 'all' takes all {len(values)} samples, not {count}: use ratio=1")
    return np.arange(len(values))
