"""Random coreset: uniform without replacement, the control of every selection method."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from cwerm.algorithms.selection import Needs

NEEDS: Needs = "labels"


def choose(
    count: int, values: Integer[np.ndarray, "group"], generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """`count` samples of the group at random."""
    return generator.choice(len(values), count, replace=False)
