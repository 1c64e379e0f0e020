"""Label noise that follows the image: a weak classifier's most probable wrong class.

In the spirit of Xia et al., "Part-dependent label noise" (NeurIPS 2020): whether a label is wrong, and
what it becomes, depends on what the image looks like, and not on its class alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

__all__ = ["confuse_by_instance"]

WHICH = 21


def confuse_by_instance(
    labels: Integer[np.ndarray, "n"],
    probabilities: Float[np.ndarray, "n classes"],
    rate: float,
    seed: int = 0,
) -> Integer[np.ndarray, "n"]:
    """Noisy labels of the same type: exactly round(rate * n) of them become the most probable wrong class.

    `probabilities` are a classifier's, rows of sum 1; a weak one makes many images confusable. Which
    labels change is drawn without replacement, each with odds in proportion to the probability of its
    wrong class: most where the classifier is most confused. The labels that change at a lower rate
    change at a higher one, too.

    Raises ValueError for a rate outside 0 to 1, labels without a column, rows that do not sum to 1,
    and where fewer samples than asked have a wrong class of any probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise rate must be from 0 to 1, got {rate}")
    _check(labels, probabilities)
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    others[rows, labels] = -1
    wrong = others.argmax(axis=1)
    confusion = others[rows, wrong]
    count = round(rate * len(labels))
    possible = int(np.count_nonzero(confusion > 0))
    if count > possible:
        raise ValueError(
            f"{count} labels are to change but the classifier confuses {possible} images only: "
            "take a weaker one or a lower rate"
        )
    # the largest of log odds plus Gumbel noise are a weighted draw without replacement
    with np.errstate(divide="ignore"):
        keys = np.log(confusion) + np.random.default_rng([seed, 0, WHICH]).gumbel(size=len(labels))
    changed = np.argsort(-keys, kind="stable")[:count]
    noisy = labels.copy()
    noisy[changed] = wrong[changed]
    return noisy


def _check(labels: Integer[np.ndarray, "n"], probabilities: Float[np.ndarray, "n classes"]) -> None:
    if probabilities.shape[1] < 2:
        raise ValueError("wrong labels need at least 2 classes")
    if labels.size and not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}; "
            f"the probabilities have columns for 0 to {probabilities.shape[1] - 1}"
        )
    sums = probabilities.sum(axis=1, dtype=np.float64)
    good = (probabilities >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-3)
    if not good.all():
        raise ValueError(f"row {good.argmin()} of the probabilities does not sum to 1")
