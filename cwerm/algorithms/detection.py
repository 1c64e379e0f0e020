"""How well weights tell mislabelled samples from clean ones, and what they do to the data set."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from cwerm.algorithms.class_labels import as_labels
from cwerm.algorithms.inputs import Given, as_array

__all__ = [
    "auroc",
    "class_weight_ratio",
    "class_weight_shares",
    "effective_sample_size",
    "precision_at_errors",
]


def auroc(
    weights: Given,
    mislabelled: Given,
) -> float:
    """Probability that a clean sample weighs more than a mislabelled one, ties counting half.

    The area under the ROC curve: 0.5 for weights that know nothing, 1 for perfect ones. Raises
    ValueError unless there are samples of both kinds.
    """
    weights, mislabelled = _finite(weights), _flags(mislabelled, weights)
    num_wrong = int(np.count_nonzero(mislabelled))
    num_clean = len(weights) - num_wrong
    if num_wrong == 0 or num_clean == 0:
        raise ValueError(
            f"{num_wrong} of {len(weights)} samples are mislabelled; "
            "AUROC needs both clean and mislabelled ones"
        )
    _, position, copies = np.unique(weights, return_inverse=True, return_counts=True)
    ranks = np.cumsum(copies) - (copies - 1) / 2  # from 1; equals share their mean rank
    clean_ranks = ranks[position[~mislabelled]].sum()
    return float((clean_ranks - num_clean * (num_clean + 1) / 2) / num_clean / num_wrong)


def precision_at_errors(weights: Given, mislabelled: Given) -> float:
    """Share of mislabelled among the lowest weights, as many as there are mislabelled samples.

    Of equal weights at the border, each is taken in part, so that constant weights score the share
    of mislabelled samples. Raises ValueError if there are none.
    """
    weights, mislabelled = _finite(weights), _flags(mislabelled, weights)
    count = int(np.count_nonzero(mislabelled))
    if count == 0:
        raise ValueError("no sample is mislabelled; precision needs at least one")
    border = np.partition(weights, count - 1)[count - 1]
    below, at = weights < border, weights == border
    left = count - np.count_nonzero(below)
    found = np.count_nonzero(mislabelled & below) + left * mislabelled[at].mean()
    return float(found / count)


def effective_sample_size(weights: Given) -> float:
    """(sum w)^2 / sum w^2 as a share of n (Kish): 1 for equal weights, 1 / n for a single one."""
    weights = _usable(weights)
    scaled = weights.astype(np.float64) / weights.max()
    return float(scaled.sum() ** 2 / np.square(scaled).sum() / len(scaled))


def class_weight_shares(weights: Given, labels: Given) -> Float[np.ndarray, "classes"]:
    """Each class's share of the total weight; 0 for class numbers without samples."""
    weights = _usable(weights)
    known = as_labels(labels, len(weights), rows="weights")
    totals = np.bincount(np.array(known.numbers)[known.codes], weights.astype(np.float64))
    return totals / totals.sum()


def class_weight_ratio(weights: Given, labels: Given) -> float:
    """Largest over smallest total weight of the classes that have samples.

    The imbalance that training sees: 1 if classes weigh the same, infinite if one weighs nothing.
    """
    weights = _usable(weights)
    known = as_labels(labels, len(weights), rows="weights")
    shares = np.bincount(known.codes, weights.astype(np.float64))
    return float(shares.max() / shares.min()) if shares.min() > 0 else float("inf")


def _finite(weights: Given) -> Float[np.ndarray, "n"]:
    values = as_array(weights, "weights")
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise ValueError(
            f"weights are {values.dtype} of shape {list(values.shape)}: give one a sample"
        )
    values = values.astype(np.float64 if values.dtype.kind != "f" else f"f{values.dtype.itemsize}")
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"the weight of sample {finite.argmin()} is NaN or infinite; repair it")
    return values


def _flags(mislabelled: Given, weights: Given) -> Bool[np.ndarray, "n"]:
    flags = as_array(mislabelled, "mislabelled")
    if flags.dtype != bool or flags.shape != (len(weights),):
        raise ValueError(
            f"mislabelled is {flags.dtype} of shape {list(flags.shape)}: give True or False for each "
            f"of the {len(weights)} weights"
        )
    return flags


def _usable(weights: Given) -> Float[np.ndarray, "n"]:
    values = _finite(weights)
    if values.size == 0 or values.min() < 0 or values.max() == 0:
        raise ValueError(
            "weights must be at least one number, none below 0 and not all 0; check how they arose"
        )
    return values
