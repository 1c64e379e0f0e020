"""What is found out about the labels of some samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

__all__ = ["Judgement"]

UNKNOWN: Any = None  # of what weighs samples, and does not judge their labels


class Judgement(NamedTuple):
    """One row for each sample that was asked about; see `LabelPosterior.judge`.

    What gives a weight and no more leaves the rest None.
    """

    weight: Float32[np.ndarray, "n"]
    quality: Float32[np.ndarray, "n"] = UNKNOWN
    issue: Bool[np.ndarray, "n"] = UNKNOWN
    suggested: Int64[np.ndarray, "n"] = UNKNOWN
    suggestion_probability: Float32[np.ndarray, "n"] = UNKNOWN
    # float32 [n, classes]; of `find_label_errors` with over 1,000 classes a sparse matrix
    belief: Any = UNKNOWN
    duplicate_of: Int64[np.ndarray, "n"] = UNKNOWN
