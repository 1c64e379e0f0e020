"""All samples: no coreset at all, for reweighting on the whole data set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Integer

from cwerm.algorithms.selection import Needs

NEEDS: Needs = "labels"


def choose(
    count: int, values: Integer[np.ndarray, "group"], generator: np.random.Generator
) -> Int[np.ndarray, "{count}"]:
    """Every sample of the group; `count` must be their number."""
    assert count == len(values), f"{count} of {len(values)} samples asked of the method `all`"
    return np.arange(len(values))
