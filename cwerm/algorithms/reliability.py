"""How often what is said to be right with some probability is right: counts in bins of the probability.

Guo et al., "On Calibration of Modern Neural Networks" (2017), Eq. 2 and 3.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

__all__ = ["NUM_BINS", "calibration_error", "reliability_bins", "reliability_rows"]

NUM_BINS = 15


def reliability_bins(
    probabilities: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, "3 bins"]:
    """By bin the samples, the sum of their probabilities, and how many of them are right.

    15 bins of equal width between 0 and 1, which contain their upper edge. Bins of parts add up.
    """
    values = probabilities.astype(np.float64)
    place = np.clip(np.ceil(values * NUM_BINS).astype(np.int64), 1, NUM_BINS) - 1
    sums = (None, values, right.astype(np.float64))
    return np.stack([np.bincount(place, sum_, NUM_BINS).astype(np.float64) for sum_ in sums])


def calibration_error(bins: Float64[np.ndarray, "3 bins"]) -> float:
    """The mean distance of probability and share of right ones, by samples (ECE)."""
    count, probability, right = bins
    return float(np.abs(right - probability).sum() / count.sum())


def reliability_rows(bins: Float64[np.ndarray, "3 bins"]) -> list[tuple[int, float, float]]:
    """Of each bin that is not empty its samples, their mean probability and the share that is right."""
    count, probability, right = bins[:, bins[0] > 0]
    means = zip(count, probability / count, right / count, strict=True)
    return [(int(samples), float(mean), float(share)) for samples, mean, share in means]
