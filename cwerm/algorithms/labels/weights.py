"""From the probability that a label is right to the weight of its sample in training.

The weight is p(right) - p(wrong), none below 0: a network that trains for long memorises whatever has any.
Within each given class the weights are scaled towards the number of samples that are truly of the class,
so that cleaning does not shift the balance of classes; the scale is bounded, and the target is not the
number of given labels, so a class of mostly wrong labels does not get their weight back.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

__all__ = ["class_scales", "raw_weights"]

LARGEST_SCALE = 2.0


def raw_weights(
    quality: Float[np.ndarray, " n"],
    labels: Int64[np.ndarray, " n"],
    border: Float64[np.ndarray, " classes"],
) -> Float64[np.ndarray, " n"]:
    """From 0 at a class's border to 1 at certainty."""
    least = border[labels]
    return np.maximum(0.0, quality - least) / (1 - least)


def borders(
    quality: Float[np.ndarray, " m"], labels: Int64[np.ndarray, " m"], classes: int
) -> tuple[Float64[np.ndarray, " classes"], Bool[np.ndarray, " classes"]]:
    """A half, or less for classes that would vanish: such keep their best. And which classes those are."""
    best = np.zeros(classes)
    np.maximum.at(best, labels, quality)
    present = np.bincount(labels, minlength=classes) > 0
    rescued = present & (best <= 0.5)
    return np.where(rescued, 0.9 * best, 0.5), rescued


def class_scales(
    weights: Float64[np.ndarray, " m"],
    labels: Int64[np.ndarray, " m"],
    priors: Float64[np.ndarray, " classes"],
) -> Float64[np.ndarray, " classes"]:
    """A factor for each given class; the mean weight becomes 1."""
    total = np.bincount(labels, weights, minlength=len(priors))
    wanted = priors * total.sum() / priors.sum()
    scale = np.clip(wanted / np.maximum(total, 1e-12), 1 / LARGEST_SCALE, LARGEST_SCALE)
    return scale * len(labels) / (scale @ total)
