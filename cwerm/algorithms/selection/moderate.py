"""Moderate coreset: samples whose distance to the class median is nearest to the median distance.

Source: the CW-ERM paper, section 4.1; Xia et al., "Moderate coreset" (ICLR 2023).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from cwerm.algorithms.selection import Needs

NEEDS: Needs = "distances"


def choose(
    count: int,
    values: Float[np.ndarray, "group"],
    generator: np.random.Generator,
) -> Integer[np.ndarray, "{count}"]:
    """The `count` distances nearest to their median; of equals, the first."""
    distances = values.astype(np.float64)
    return np.argsort(np.abs(distances - np.median(distances)), kind="stable")[:count]
