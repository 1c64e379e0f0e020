"""Coreset selection: which samples, of how many of each class (CW-ERM paper, section 4.1).

`select_coreset` works on arrays. Where the features do not fit in memory, or a head is trained
elsewhere, compute what the method needs (`selection.load_method(name).NEEDS`) and call `select`
with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Integer, Shaped

from cwerm.algorithms.class_counts import (
    allocate,
    check_several,
    check_size,
    coreset_size,
    members_of,
)
from cwerm.algorithms.class_labels import Labels, as_labels
from cwerm.algorithms.inputs import Given, as_features, blocks, check_whole_number
from cwerm.algorithms.networks.names import unknown_name
from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.selection import Method, load_method
from cwerm.algorithms.spreading.agreement import Surroundings, surroundings

__all__ = [
    "choose_in_class",
    "class_medians",
    "distances_to_centers",
    "median",
    "select",
    "select_coreset",
]

SCOPES = ("class", "global")


def class_medians(
    features: Float[np.ndarray, "n d"], labels: Integer[np.ndarray, "n"]
) -> Float[np.ndarray, "classes d"]:
    """Median of each feature dimension by class, float64; NaN for class numbers without samples."""
    medians = np.full((int(labels.max()) + 1, features.shape[1]), np.nan)
    for label, rows in enumerate(members_of(labels, len(medians))):
        if len(rows):
            medians[label] = median(features[rows])
    return medians


def median(features: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "d"]:
    """The exact median of each dimension, or the mean of the two middle values; a few columns at a time."""
    found = np.empty(features.shape[1])
    for columns in blocks(features.shape[1], len(features)):
        found[columns] = np.median(features[:, columns].astype(np.float64), axis=0)
    return found


def distances_to_centers(
    features: Float[np.ndarray, "n d"],
    labels: Integer[np.ndarray, "n"],
    centers: Float[np.ndarray, "classes d"],
) -> Float[np.ndarray, "n"]:
    """Euclidean distance of each row to its class centre, whatever batch it comes in.

    float32, of float64 features float64.
    """
    precise = features.dtype == np.float64
    distances = np.empty(len(labels), np.float64 if precise else np.float32)
    for rows in blocks(*features.shape):
        differences = features[rows].astype(np.float64) - centers[labels[rows]]
        distances[rows] = np.sqrt(np.square(differences).sum(axis=1))
    return distances


def select(
    labels: Given,
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
    check_whole_number("the seed", seed, 0)
    known = labels if isinstance(labels, Labels) else as_labels(labels)
    check_several(known.classes)
    codes = known.codes
    given: dict[str, Any] = {
        "labels": codes, "distances": distances, "features": features, "outputs": outputs
    }  # fmt: skip
    if chosen.NEEDS == "surroundings":
        assert features is not None, f"{method} needs features"
        given["surroundings"] = surroundings(features, codes)
    values = given[chosen.NEEDS]
    assert values is not None, f"{method} needs {chosen.NEEDS}"
    assert len(values) == len(codes)
    if scope == "global":
        generator = np.random.default_rng(seed)
        check_size(np.bincount(codes), size)
        return np.sort(chosen.choose(size, values, generator))
    members = members_of(codes, len(known.classes))
    counts = allocate(np.bincount(codes), size)
    ids = []
    for number, rows, count in zip(known.numbers, members, counts, strict=True):
        ids.append(rows[choose_in_class(chosen, number, int(count), values[rows], seed)])
    return np.sort(np.concatenate(ids))


def choose_in_class(
    method: Method,
    number: int,
    count: int,
    values: Shaped[np.ndarray, "group ..."] | Surroundings | TrainingRecord,
    seed: int,
) -> Integer[np.ndarray, "{count}"]:
    """Positions of the samples that the method chooses of class `number`, in any order."""
    return method.choose(count, values, np.random.default_rng([seed, number]))


def select_coreset(
    features: Given,
    labels: Given,
    ratio: float = 0.01,
    method: str = "moderate",
    scope: str = "class",
    seed: int = 0,
) -> Int[np.ndarray, "coreset"]:
    """Ids (row numbers) of exactly round(ratio * n) samples, ascending.

    `features` [n, d] are real numbers of any type, `labels` [n] integers from 0, booleans or strings;
    arrays, lists, pandas objects or tensors. What float64 and large integers tell apart is kept.
    Costs grow with the classes that occur, not with the largest label.

    `scope="class"` shares the coreset out to the classes in proportion (`allocate`) and chooses
    within each; `scope="global"` chooses from all samples at once. Methods: one module each in
    `selection`. Those that rank by a model's outputs get them from `train_head` with its defaults
    and the seed. Raises ValueError in one line for unknown names, a ratio too small or large, features
    that are no rows of finite numbers up to 1e30 (naming the row), labels that are no classes or a
    single one, and features and labels of different length.
    """
    needs = load_method(method).NEEDS
    vectors = as_features(features)
    known = as_labels(labels, len(vectors))
    check_several(known.classes)
    size = coreset_size(len(vectors), ratio)
    distances = outputs = None
    if needs == "distances":
        centers = class_medians(vectors, known.codes)
        distances = distances_to_centers(vectors, known.codes, centers)
    elif needs == "outputs":
        from cwerm.algorithms.reweighting.head_training import train_head  # loads torch

        check_whole_number("the seed", seed, 0)
        _, outputs = train_head(vectors, known.codes, seed=seed)
    return select(known, size, method, scope, seed, distances, vectors, outputs)
