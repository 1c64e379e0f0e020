"""How many samples of each class a coreset has (CW-ERM paper, section 4.1), and a balanced draw."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Integer, Shaped

from cwerm.algorithms.class_labels import as_labels
from cwerm.algorithms.inputs import Given, check_whole_number

__all__ = [
    "allocate",
    "balanced_counts",
    "check_several",
    "check_size",
    "class_shares",
    "coreset_size",
    "draw_balanced",
    "draw_in_class",
    "members_of",
]

DRAW_STREAM = 1  # keeps `draw_balanced` independent of a random coreset of the same seed


def coreset_size(num_samples: int, ratio: float) -> int:
    """round(ratio * n); ValueError unless the ratio is in (0, 1] and gives a sample."""
    if isinstance(ratio, str) or not 0 < ratio <= 1:
        raise ValueError(f"the coreset ratio must be above 0 and at most 1, got {ratio!r}")
    size = round(ratio * num_samples)
    if size == 0:
        raise ValueError(
            f"ratio {ratio} of {num_samples} samples is no sample; "
            f"use at least {1 / num_samples:.6g}"
        )
    return size


def allocate(class_sizes: Integer[np.ndarray, "classes"], total: int) -> Int[np.ndarray, "classes"]:
    """Coreset samples of each class: proportional, by largest remainder, at least one a class.

    The sum is exactly `total`; a class without samples gets none. Raises ValueError if there are
    fewer than one a class, or more than there are samples.
    """
    sizes = class_sizes.astype(np.int64)
    num_samples, num_classes = int(sizes.sum()), int(np.count_nonzero(sizes))
    if total > num_samples:
        raise ValueError(_too_large(total, num_samples))
    if total < num_classes:
        raise ValueError(
            f"the ratio gives {total} samples for {num_classes} classes; "
            f"use at least {num_classes / num_samples:.6g}"
        )
    counts = np.zeros_like(sizes)
    # classes owed less than one sample get one, and the others share what is left
    shared = sizes > 0
    while True:
        left, left_samples = total - int(counts.sum()), int(sizes[shared].sum())
        small = shared & (sizes * left < left_samples)
        if not small.any():
            break
        counts[small] = 1
        shared &= ~small
    members = np.flatnonzero(shared)
    if members.size:
        counts[members], remainders = np.divmod(sizes[members] * left, left_samples)
        extra = left - int(counts[members].sum())
        counts[members[np.argsort(-remainders, kind="stable")[:extra]]] += 1
    return counts


def class_shares(
    class_sizes: Integer[np.ndarray, "classes"], total: int
) -> Int[np.ndarray, "classes"]:
    """As `allocate`; ValueError also where fewer than two classes have samples."""
    check_size(class_sizes, total)
    return allocate(class_sizes, total)


def check_size(class_sizes: Integer[np.ndarray, "classes"], total: int) -> None:
    """ValueError where fewer than two classes have samples, or a coreset is more than they have."""
    check_several(np.flatnonzero(class_sizes))
    if total > class_sizes.sum():
        raise ValueError(_too_large(total, int(class_sizes.sum())))


def _too_large(total: int, num_samples: int) -> str:
    return (
        f"a coreset of {total} is more than the {num_samples} samples there are to select "
        "from; use a smaller ratio"
    )


def check_several(classes: Shaped[np.ndarray, "classes"]) -> None:
    """ValueError where all samples are of one class."""
    if len(classes) == 1:
        raise ValueError(
            f"all samples are of class {classes[0]}; selection needs two classes or more"
        )


def members_of(codes: Int[np.ndarray, "n"], num_classes: int) -> list[Int[np.ndarray, "_"]]:
    """Row numbers of each class, ascending."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=num_classes))[:-1])


def draw_balanced(labels: Given, size: int, seed: int) -> Int[np.ndarray, "{size}"]:
    """Ids of `size` samples, ascending: as many of each class, at random.

    What is left over goes one each to the classes with the most samples. Raises ValueError naming
    the class that has too few.
    """
    known = as_labels(labels)
    members = members_of(known.codes, len(known.classes))
    counts = balanced_counts(np.array([len(places) for places in members]), size, known.classes)
    check_whole_number("the seed", seed, 0)
    ids = []
    for number, places, count in zip(known.numbers, members, counts, strict=True):
        ids.append(places[draw_in_class(number, len(places), int(count), seed)])
    return np.sort(np.concatenate(ids))


def balanced_counts(
    available: Integer[np.ndarray, "classes"], size: int, classes: Shaped[np.ndarray, "classes"]
) -> Int[np.ndarray, "classes"]:
    """How many samples `draw_balanced` takes of each class, of which there are so many.

    Raises ValueError naming the class that has too few.
    """
    check_several(classes)
    check_whole_number("the number of samples to draw", size, 1)
    counts = np.full(len(classes), size // len(classes))
    counts[np.argsort(-available, kind="stable")[: size % len(classes)]] += 1
    for label, there, count in zip(classes, available, counts, strict=True):
        if count > there:
            raise ValueError(
                f"class {label} has {there} samples to draw {count} from; "
                f"draw fewer than {size} in all"
            )
    return counts


def draw_in_class(number: int, size: int, count: int, seed: int) -> Int[np.ndarray, "{count}"]:
    """Positions of the samples that `draw_balanced` takes of class `number`, which has `size`."""
    return np.random.default_rng([seed, number, DRAW_STREAM]).choice(size, count, replace=False)
