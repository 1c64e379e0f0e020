"""What `find_label_errors` refuses, each in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sets import blobs, flipped, soft

import cwerm

FEATURES, CLASSES = blobs()
LABELS, _ = flipped(CLASSES, 0.2)
NAMES = np.array(["ant", "bee", "cat", "dog"])


def with_value(row: int, value: float) -> np.ndarray:
    features = FEATURES.copy()
    features[row, 1] = value
    return features


GOOD = soft(FEATURES, CLASSES)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"features": with_value(7, np.nan)}, "row 7 of the features has NaN or infinite"),
    "inf": ({"features": with_value(9, np.inf)}, "row 9 of the features has NaN or infinite"),
    "lengths": ({"labels": LABELS[:-1]}, "600 features but 599 labels"),
    "no labels": ({"labels": None}, "there are no labels"),
    "no features": ({"features": None}, "give features, probabilities or both"),
    "one class": ({"labels": ["cat"] * 600}, "all labels are 'cat'"),
    "float labels": (
        {"labels": LABELS + 0.0},
        "labels are float64: give integers from 0, or strings",
    ),
    "a missing label": ({"labels": [None, *NAMES[LABELS][1:]]}, "row 0 of the labels is missing"),
    "sums": ({"probabilities": GOOD * 2}, "row 0 of the probabilities sums to 2, not to 1"),
    "negative": ({"probabilities": GOOD + np.array([[-1, 1, 0, 0]])}, "none may be negative"),
    "columns": ({"probabilities": GOOD[:, :3]}, "3 columns but the labels have 4 classes"),
    "rows": ({"probabilities": GOOD[:5]}, "5 rows of probabilities but 600 labels"),
    "groups": ({"groups": [1, 2]}, "600 labels but 2 groups"),
    "one group": ({"groups": ["a"] * 600}, "all samples are of one group"),
    "unknown class": (
        {
            "labels": NAMES[LABELS],
            "trusted_features": FEATURES[:2],
            "trusted_labels": ["ant", "eel"],
        },
        "trusted_labels name class 'eel', which no label has",
    ),
    "trusted strings": (
        {"trusted_features": FEATURES[:2], "trusted_labels": ["ant", "bee"]},
        "labels are numbers and trusted_labels strings",
    ),
    "trusted alone": ({"trusted_labels": LABELS[:3]}, "give trusted_features, too"),
    "trusted features alone": ({"trusted_features": FEATURES[:3]}, "give trusted_labels, too"),
    "trusted length": (
        {"trusted_features": FEATURES[:3], "trusted_labels": LABELS[:2]},
        "3 trusted_features but 2 trusted_labels",
    ),
    "trusted columns": (
        {"trusted_features": FEATURES[:3, :5], "trusted_labels": LABELS[:3]},
        "features have 12 columns but trusted_features 5",
    ),
    "seed": ({"seed": -1}, "seed must be at least 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line(case: str) -> None:
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        cwerm.find_label_errors(**{"features": FEATURES, "labels": LABELS, **changed})
    assert message in str(caught.value)
