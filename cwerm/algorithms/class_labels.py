"""Labels as callers give them, as positions among the classes that occur."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from cwerm.algorithms.inputs import Given, as_array

__all__ = [
    "Labels",
    "as_labels",
    "class_numbers",
    "join_labels",
]


class Labels(NamedTuple):
    """Labels as positions in `classes`, the distinct labels as given, ascending."""

    codes: Int64[np.ndarray, " n"]
    classes: Shaped[np.ndarray, " classes"]

    @property
    def numbers(self) -> list[int]:
        """A number for each class: the label itself, or its position if labels are no integers."""
        if self.classes.dtype.kind in "iu":
            return [int(label) for label in self.classes]
        return list(range(len(self.classes)))


def as_labels(
    values: Given, size: int | None = None, name: str = "labels", rows: str = "features"
) -> Labels:
    """One class for each of `size` samples: integers from 0 of any type, booleans or strings."""
    array = as_array(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"{name} have shape {list(array.shape)}: give one class for each sample, [n]"
            + _hint(array, name)
        )
    if size is not None and len(array) != size:
        raise ValueError(f"{size} {rows} but {len(array)} {name}; give one label for each sample")
    if len(array) == 0:
        raise ValueError(f"there are no samples: {name} are empty; check the data source")
    if isinstance(values, list | tuple) and array.dtype.kind in "US":
        array = np.array(values, object)  # NumPy makes strings of numbers among strings
    array = _plain_labels(array, name)
    if array.dtype.kind in "iu":
        array = _whole(array, name)
    classes, codes = np.unique(array, return_inverse=True)
    return Labels(codes.astype(np.int64), classes)


def _hint(array: np.ndarray, name: str) -> str:
    if array.ndim != 2 or array.shape[1] == 0:
        return ""
    return f", as {name}[:, 0]" if array.shape[1] == 1 else f", as {name}.argmax(1) of one-hot rows"


def _plain_labels(array: np.ndarray, name: str) -> np.ndarray:
    """The labels as integers, booleans or strings."""
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind == "f" and np.isnan(array).any():  # pandas makes floats of such integers
        array = array.astype(object)
    if array.dtype.kind == "O":
        missing = [i for i, label in enumerate(array) if label is None or _is_missing(label)]
        if missing:
            raise ValueError(f"row {missing[0]} of the {name} is missing; remove it or label it")
        kinds = {
            "bool" if isinstance(label, bool | np.bool_)
            else "int" if isinstance(label, int | np.integer)
            else "str" if isinstance(label, str)
            else type(label).__name__
            for label in array
        }  # fmt: skip
        if len(kinds) > 1:
            raise ValueError(f"{name} mix {' and '.join(sorted(kinds))}: give labels of one type")
        if kinds <= {"bool", "int", "str"}:
            array = np.array(array.tolist())
        else:
            raise ValueError(f"{name} are {kinds.pop()}: give integers from 0, or strings")
    if array.dtype.kind not in "iubUS":
        raise ValueError(f"{name} are {array.dtype}: give integers from 0, or strings")
    return array


def _is_missing(label: Any) -> bool:
    try:
        return bool(label != label)
    except TypeError:  # pandas.NA
        return True


def _whole(array: np.ndarray, name: str) -> np.ndarray:
    """Native integers, none below 0."""
    if array.min() < 0:
        raise ValueError(
            f"{name} must be class numbers from 0 on, got {array.min()} "
            f"in row {int(np.argmin(array))}"
        )
    return array.astype(np.int64 if array.max() < 1 << 63 else np.uint64)


def join_labels(first: Labels, other: Labels, name: str, other_name: str) -> tuple[Labels, Labels]:
    """Both over the classes of both together."""
    kinds = [
        "numbers" if labels.classes.dtype.kind in "iub" else "strings" for labels in (first, other)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{name} are {kinds[0]} and {other_name} {kinds[1]}: give both alike")
    sets = [first.classes, other.classes]
    if {values.dtype.kind for values in sets} & {"b", "u"} and sets[0].dtype != sets[1].dtype:
        sets = [values.astype(np.uint64) for values in sets]
    classes, places = np.unique(np.concatenate(sets), return_inverse=True)
    if classes.dtype == np.uint64 and classes.max() < 1 << 63:
        classes = classes.astype(np.int64)
    split = len(first.classes)
    return (
        Labels(places[:split][first.codes], classes),
        Labels(places[split:][other.codes], classes),
    )


def class_numbers(
    values: Given, num_classes: int, size: int | None = None, name: str = "labels"
) -> Int64[np.ndarray, " n"]:
    """Labels that are numbers of `num_classes` known classes, int64."""
    labels = as_labels(values, size, name)
    if labels.classes.dtype.kind not in "iub":
        raise ValueError(f"{name} are strings: give class numbers from 0 to {num_classes - 1}")
    if labels.classes[-1] >= num_classes:
        raise ValueError(
            f"{name} reach {labels.classes[-1]}: with {num_classes} classes they run from 0 to "
            f"{num_classes - 1}"
        )
    return labels.classes.astype(np.int64)[labels.codes]
