"""Coreset selection: how many samples of each class, and which (CW-ERM paper, section 4.1).

`select_coreset` works on arrays. Where the features do not fit in memory, or a head is trained
elsewhere, compute what the method needs (`selection.load_method(name).NEEDS`) and call `select`
with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from cwerm.algorithms.medians import check_finite
from cwerm.algorithms.names import unknown_name
from cwerm.algorithms.selection import load_method
from cwerm.algorithms.training_record import TrainingRecord

__all__ = [
    "allocate",
    "class_medians",
    "coreset_size",
    "distances_to_centers",
    "draw_balanced",
    "select",
    "select_coreset",
]

SCOPES = ("class", "global")
CHUNK_ELEMENTS = 1 << 20
DRAW_STREAM = 1  # keeps `draw_balanced` independent of a random coreset of the same seed


def coreset_size(num_samples: int, ratio: float) -> int:
    """round(ratio * n); ValueError unless the ratio is in (0, 1] and gives a sample."""
    if not 0 < ratio <= 1:
        raise ValueError(f"the coreset ratio must be above 0 and at most 1, got {ratio}")
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
    _check_size(total, num_samples)
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


def _check_size(total: int, num_samples: int) -> None:
    if total > num_samples:
        raise ValueError(
            f"a coreset of {total} is more than the {num_samples} samples there are to select "
            "from; use a smaller ratio"
        )


def _check_labels(labels: Integer[np.ndarray, "n"]) -> None:
    if labels.size == 0:
        raise ValueError("there are no samples to select from; check the data source")
    if labels.min() < 0:
        raise ValueError(f"labels must be class numbers from 0 on, got {labels.min()}")
    if labels.min() == labels.max():
        raise ValueError(
            f"all samples are of class {labels[0]}; selection needs two classes or more"
        )


def _check_features(features: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, "m"]) -> None:
    if len(features) != len(labels):
        raise ValueError(
            f"{len(features)} features but {len(labels)} labels; give one label a feature row"
        )
    check_finite(features)


def class_medians(
    features: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, "n"]
) -> Float[np.ndarray, "classes d"]:
    """Median of each feature dimension by class, float32; NaN for class numbers without samples."""
    medians = np.full((int(labels.max()) + 1, features.shape[1]), np.nan, np.float32)
    for label in np.unique(labels):
        medians[label] = np.median(features[labels == label].astype(np.float64), axis=0)
    return medians


def distances_to_centers(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, "n"],
    centers: Float[np.ndarray, "classes d"],
) -> Float[np.ndarray, "n"]:
    """Euclidean distance of each row to its class centre, float32, whatever batch it comes in."""
    distances = np.empty(len(labels), np.float32)
    rows = max(1, CHUNK_ELEMENTS // features.shape[1])
    for start in range(0, len(labels), rows):
        chunk = slice(start, start + rows)
        differences = features[chunk].astype(np.float64) - centers[labels[chunk]]
        distances[chunk] = np.sqrt(np.square(differences).sum(axis=1))
    return distances


def select(
    labels: Integer[np.ndarray, "n"],
    size: int,
    method: str = "moderate",
    scope: str = "class",
    seed: int = 0,
    distances: Float[np.ndarray, "n"] | None = None,
    features: Float[np.ndarray, "n d"] | None = None,
    outputs: TrainingRecord | None = None,
) -> Int[np.ndarray, "{size}"]:
    """`size` coreset ids (row numbers, ascending) from what the method needs (`select_coreset`)."""
    chosen = load_method(method)
    if scope not in SCOPES:
        raise unknown_name("coreset scope", scope, SCOPES)
    _check_labels(labels)
    given = {"labels": labels, "distances": distances, "features": features, "outputs": outputs}
    values = given[chosen.NEEDS]
    assert values is not None, f"{method} needs {chosen.NEEDS}"
    assert len(values) == len(labels)
    if scope == "global":
        generator = np.random.default_rng(seed)
        _check_size(size, len(labels))
        return np.sort(chosen.choose(size, values, generator))
    ids = []
    for label, count in enumerate(allocate(np.bincount(labels), size)):
        members = np.flatnonzero(labels == label)
        generator = np.random.default_rng([seed, label])
        if count:
            ids.append(members[chosen.choose(int(count), values[members], generator)])
    return np.sort(np.concatenate(ids))


def select_coreset(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, "m"],
    ratio: float = 0.01,
    method: str = "moderate",
    scope: str = "class",
    seed: int = 0,
) -> Int[np.ndarray, "coreset"]:
    """Ids (row numbers) of exactly round(ratio * n) samples, ascending.

    `scope="class"` shares the coreset out to the classes in proportion (`allocate`) and chooses
    within each; `scope="global"` chooses from all samples at once. Methods: one module each in
    `selection`. Those that rank by a model's outputs get them from `train_head` with its defaults
    and the seed. Raises ValueError in one line for unknown names, a ratio too small or large, NaN or
    infinite features (naming the row), a single class, and features and labels of different length.
    """
    needs = load_method(method).NEEDS
    _check_labels(labels)
    _check_features(features, labels)
    size = coreset_size(len(labels), ratio)
    distances = outputs = None
    if needs == "distances":
        distances = distances_to_centers(features, labels, class_medians(features, labels))
    elif needs == "outputs":
        from cwerm.algorithms.head_training import train_head  # loads torch

        _, outputs = train_head(features, labels, seed=seed)
    return select(labels, size, method, scope, seed, distances, features, outputs)


def draw_balanced(
    labels: Integer[np.ndarray, "n"],
    size: int,
    seed: int,
    exclude: Sequence[int] | Integer[np.ndarray, "excluded"] = (),
) -> Int[np.ndarray, "{size}"]:
    """Ids of `size` samples, ascending: as many of each class, at random, none of `exclude`.

    What is left over goes one each to the classes with the most samples. Raises ValueError naming
    the class that has too few.
    """
    _check_labels(labels)
    if size < 1:
        raise ValueError(f"the number of samples to draw must be at least 1, got {size}")
    free = np.ones(len(labels), bool)
    free[np.asarray(exclude, np.int64)] = False
    classes = np.unique(labels)
    available = np.array([np.count_nonzero(free & (labels == label)) for label in classes])
    counts = np.full(len(classes), size // len(classes))
    counts[np.argsort(-available, kind="stable")[: size % len(classes)]] += 1
    ids = []
    for label, count, most in zip(classes, counts, available, strict=True):
        if count > most:
            raise ValueError(
                f"class {label} has {most} samples to draw {count} from; "
                f"draw fewer than {size} in all"
            )
        generator = np.random.default_rng([seed, int(label), DRAW_STREAM])
        ids.append(generator.choice(np.flatnonzero(free & (labels == label)), count, replace=False))
    return np.sort(np.concatenate(ids))
