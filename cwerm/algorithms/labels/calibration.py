"""Make the probabilities that labels are right agree, on average, with the rate of wrong labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

__all__ = ["calibrated", "fit_shift"]

SMALLEST = 1e-7


def calibrated(
    probability: Float[np.ndarray, " n"], slope: float, shift: float
) -> Float64[np.ndarray, " n"]:
    """An affine change of the log-odds."""
    inside = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return 1 / (1 + np.exp(-(slope * np.log(inside / (1 - inside)) + shift)))


def fit_shift(probability: Float[np.ndarray, " m"], slope: float, rate: float) -> float:
    """The shift with which the mean becomes 1 - rate."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if calibrated(probability, slope, middle).mean() < 1 - rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
