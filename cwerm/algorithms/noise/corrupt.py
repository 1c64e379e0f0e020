"""Label noise and long tails by their standard definitions, reproducible by seed.

Noise is drawn a sample at a time, as in Meta-Weight-Net (Shu et al., NeurIPS 2019): each label
changes with the given probability on its own, so the number of wrong labels varies by its binomial
spread. With C classes and rate p, a label is drawn anew with probability p from

- `uniform`: all C classes, its own among them, so that only p * (C - 1) / C of the labels change
  (Meta-Weight-Net's uniform noise; 40% on 10 classes changes 36%);
- `symmetric`: the C - 1 other classes;
- `flip`: the next class, y + 1 mod C (pair flip of Han et al., "Co-teaching", NeurIPS 2018;
  Meta-Weight-Net's code draws that one class at random);
- `flip2`: two other classes, drawn at random from the seed for each class, p / 2 each
  (Meta-Weight-Net's flip noise).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Integer

from cwerm.algorithms.networks.names import unknown_name

__all__ = [
    "NOISE_KINDS",
    "corrupt_labels",
    "draw_tail",
    "long_tail",
    "long_tail_counts",
    "tail_counts",
    "transition_matrix",
]

NOISE_KINDS = ("uniform", "symmetric", "flip", "flip2")

# keep these draws independent of each other and of a coreset of the same seed
WHETHER, WHICH, PAIRS, TAIL = 11, 12, 13, 14


def corrupt_labels(
    labels: Integer[np.ndarray, "n"], kind: str, rate: float, num_classes: int, seed: int = 0
) -> Integer[np.ndarray, "n"]:
    """Noisy labels of the same type, one draw a sample with the rows of `transition_matrix`.

    The labels that change at a lower rate change at a higher one too, and to the same classes.
    Raises ValueError for an unknown kind, a rate outside 0 to 1, too few classes or a label that is
    none of them.
    """
    _check(kind, rate, num_classes)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}; "
            f"they must be class numbers from 0 to {num_classes - 1}"
        )
    drawn_anew = _generator(seed, WHETHER).random(len(labels)) < rate
    number = {"uniform": num_classes, "symmetric": num_classes - 1, "flip": 1, "flip2": 2}[kind]
    which = _generator(seed, WHICH).integers(number, size=len(labels))
    if kind == "uniform":  # the two with as many choices as classes have no need of their table
        drawn = which
    elif kind == "symmetric":
        drawn = (labels + 1 + which) % num_classes
    else:
        drawn = _choices(kind, num_classes, seed)[labels, which]
    return np.where(drawn_anew, drawn, labels).astype(labels.dtype)


def transition_matrix(
    kind: str, rate: float, num_classes: int, seed: int = 0
) -> Float[np.ndarray, "{num_classes} {num_classes}"]:
    """Probability of each noisy label (column) by true class (row), for `corrupt_labels`."""
    _check(kind, rate, num_classes)
    choices = _choices(kind, num_classes, seed)
    matrix = (1 - rate) * np.eye(num_classes)
    rows = np.arange(num_classes)[:, None]
    matrix[rows, choices] += rate / choices.shape[1]
    return matrix


def _check(kind: str, rate: float, num_classes: int) -> None:
    if kind not in NOISE_KINDS:
        raise unknown_name("label noise", kind, NOISE_KINDS)
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise rate must be from 0 to 1, got {rate}")
    needed = 3 if kind == "flip2" else 2
    if num_classes < needed:
        raise ValueError(f"{kind} label noise needs at least {needed} classes, got {num_classes}")


def _choices(kind: str, num_classes: int, seed: int) -> Int[np.ndarray, "{num_classes} choices"]:
    """The equally likely classes that a label of each class is drawn anew from."""
    classes = np.arange(num_classes)[:, None]
    if kind == "uniform":
        return np.repeat(classes.T, num_classes, axis=0)
    if kind == "symmetric":
        return (classes + np.arange(1, num_classes)) % num_classes
    if kind == "flip":
        return (classes + 1) % num_classes
    generator = _generator(seed, PAIRS)
    pairs = [generator.choice(num_classes - 1, 2, replace=False) for _ in range(num_classes)]
    return (classes + 1 + np.array(pairs)) % num_classes


def long_tail_counts(
    n_max: int, num_classes: int, imbalance: float
) -> Int[np.ndarray, "{num_classes}"]:
    """Samples of each class: int(n_max * f^(c / (C - 1))) with f = 1 / imbalance, falling with c.

    `imbalance` is the size of the largest class over that of the smallest, 1 for balanced classes
    (Cui et al., "Class-balanced loss", CVPR 2019). Raises ValueError if it is below 1 or leaves a
    class without samples.
    """
    if not imbalance >= 1:
        raise ValueError(
            f"imbalance is the largest class over the smallest, at least 1, got {imbalance}"
        )
    if num_classes < 2:
        raise ValueError(f"a long tail needs at least 2 classes, got {num_classes}")
    exponents = [c / (num_classes - 1) for c in range(num_classes)]
    counts = np.array([int(n_max / imbalance**exponent) for exponent in exponents])
    if counts[-1] == 0:
        raise ValueError(
            f"imbalance {imbalance:g} leaves no sample of {n_max} in the smallest class; "
            f"use at most {n_max}"
        )
    return counts


def long_tail(
    labels: Integer[np.ndarray, "n"], imbalance: float, seed: int = 0
) -> Int[np.ndarray, "kept"]:
    """Ids (row numbers, ascending) of a long-tailed draw; class 0 stays largest.

    n_max of `long_tail_counts` is the size of the smallest class, so that every class has enough. A
    larger imbalance keeps a part of what a smaller one keeps. Raises ValueError as
    `long_tail_counts`, and if a class number below the highest has no samples.
    """
    sizes = np.bincount(labels)
    counts = tail_counts(sizes, imbalance)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    kept = [
        rows[draw_tail(label, len(rows), int(count), seed)]
        for label, (count, rows) in enumerate(zip(counts, members, strict=True))
    ]
    return np.sort(np.concatenate(kept))


def tail_counts(
    sizes: Integer[np.ndarray, "classes"], imbalance: float
) -> Int[np.ndarray, "classes"]:
    """How many samples `long_tail` keeps of each class, of which there are so many; raises as that."""
    if sizes.size and sizes.min() == 0:
        raise ValueError(f"class {sizes.argmin()} has no samples to make a long tail of")
    return long_tail_counts(int(sizes.min(initial=sizes.sum())), len(sizes), imbalance)


def draw_tail(label: int, size: int, count: int, seed: int) -> Int[np.ndarray, "{count}"]:
    """Positions of the samples that `long_tail` keeps of a class, which has ``size``."""
    return _generator(seed, TAIL, label).permutation(size)[:count]


def _generator(seed: int, stream: int, label: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, label, stream])
