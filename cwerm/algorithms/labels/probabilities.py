"""Out-of-sample class probabilities that a user has already."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from cwerm.algorithms.inputs import Given, as_features

__all__ = ["as_probabilities"]

TOLERANCE = 1e-3  # of a row's sum; half precision has about as much


def as_probabilities(values: Given, size: int, classes: int) -> Float32[np.ndarray, "n classes"]:
    """`size` rows of `classes` probabilities, each of sum 1."""
    array = as_features(values, "probabilities")
    if len(array) != size:
        raise ValueError(
            f"{len(array)} rows of probabilities but {size} labels; give one row a label"
        )
    if array.shape[1] != classes:
        raise ValueError(
            f"probabilities have {array.shape[1]} columns but the labels have {classes} classes; "
            "give one column a class, in ascending order of the classes"
        )
    sums = array.sum(axis=1, dtype=np.float64)
    wrong = (array.min(axis=1) < 0) | (np.abs(sums - 1) > TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        if array[row].min() < 0:
            raise ValueError(
                f"row {row} of the probabilities holds {array[row].min():.6g}; none may be negative"
            )
        raise ValueError(
            f"row {row} of the probabilities sums to {sums[row]:.6g}, not to 1; "
            "give probabilities (softmax of the logits)"
        )
    return (array / sums[:, None]).astype(np.float32)
