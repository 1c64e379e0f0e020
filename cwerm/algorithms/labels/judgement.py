"""What is found out about the labels of some samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

__all__ = ["Judgement"]


class Judgement(NamedTuple):
    """One row for each sample that was asked about; see `LabelPosterior.judge`."""

    weight: Float32[np.ndarray, "n"]
    quality: Float32[np.ndarray, "n"]
    issue: Bool[np.ndarray, "n"]
    suggested: Int64[np.ndarray, "n"]
    suggestion_probability: Float32[np.ndarray, "n"]
    belief: (
        Any  # float32 [n, classes]; of `find_label_errors` with over 1,000 classes a sparse matrix
    )
    duplicate_of: Int64[np.ndarray, "n"]
