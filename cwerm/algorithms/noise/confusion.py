"""Label noise by a table: how often people take one class for another, by the classes' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer

from cwerm.algorithms.networks.names import unknown_name

__all__ = ["confuse_by_table", "confusion_matrix", "scale_confusions"]

WHETHER = 22


def confusion_matrix(
    confusions: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> Float[np.ndarray, "classes classes"]:
    """Probability of each given class (column) by true class (row), in the order of `names`.

    `confusions` says with what probability a class is taken for which others, as in
    {"Shirt": {"Coat": 0.1}}; what is left of each row is its own. Raises ValueError for a class that
    `names` lacks, one taken for itself, a probability below 0, and a row above 1.
    """
    places = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)))
    for true, taken in confusions.items():
        for given, probability in taken.items():
            for name in (true, given):
                if name not in places:
                    raise unknown_name("class", name, names)
            if true == given:
                raise ValueError(f"{true} is taken for itself: leave that out")
            if not probability >= 0:
                raise ValueError(f"{true} is taken for {given} with probability {probability}")
            matrix[places[true], places[given]] = probability
    return _with_diagonal(matrix, names)


def scale_confusions(
    matrix: Float[np.ndarray, "classes classes"],
    labels: Integer[np.ndarray, "n"],
    rate: float,
) -> Float[np.ndarray, "classes classes"]:
    """The same confusions, all by one factor, so that a share `rate` of these labels changes on average.

    Raises ValueError where a class would have to be wrong with more than certainty, and if the matrix
    confuses nothing.
    """
    wrong = matrix * (1 - np.eye(len(matrix)))
    shares = np.bincount(labels, minlength=len(matrix)) / len(labels)
    now = float(shares @ wrong.sum(axis=1))
    if now == 0:
        raise ValueError("the matrix confuses none of these labels, so that no factor helps")
    return _with_diagonal(wrong * (rate / now), [str(label) for label in range(len(matrix))])


def confuse_by_table(
    labels: Integer[np.ndarray, "n"], matrix: Float[np.ndarray, "classes classes"], seed: int = 0
) -> Integer[np.ndarray, "n"]:
    """Noisy labels of the same type, one draw a sample from its class's row of the matrix.

    Raises ValueError for a label without a row and for rows that do not sum to 1.
    """
    if labels.size and not 0 <= labels.min() <= labels.max() < len(matrix):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}; "
            f"the matrix has rows for 0 to {len(matrix) - 1}"
        )
    if (matrix < 0).any() or np.abs(matrix.sum(axis=1) - 1).max(initial=0) > 1e-9:
        raise ValueError("each row of the matrix must hold probabilities that sum to 1")
    draws = np.random.default_rng([seed, 0, WHETHER]).random(len(labels))
    # the own class takes the low end, so that the labels that change at a lower rate change at a higher
    own = np.arange(len(matrix))
    ordered = np.argsort(own != own[:, None], axis=1, kind="stable")
    borders = np.cumsum(np.take_along_axis(matrix, ordered, axis=1), axis=1)[:, :-1]
    place = (draws[:, None] >= borders[labels]).sum(axis=1)
    return ordered[labels, place].astype(labels.dtype)


def _with_diagonal(
    wrong: Float[np.ndarray, "classes classes"], names: Sequence[str]
) -> Float[np.ndarray, "classes classes"]:
    total = wrong.sum(axis=1)
    if total.max(initial=0) > 1:
        worst = int(total.argmax())
        raise ValueError(
            f"class {names[worst]} would be wrong with probability {total[worst]:.3g}, above 1"
        )
    matrix = wrong.copy()
    np.fill_diagonal(matrix, 1 - total)
    return matrix
