"""What `MetaWeightNet` can not learn from is named in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from cwerm.algorithms.reweighting.metaweight import MetaWeightNet

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def test_a_diverging_run_names_the_learning_rate(digits: Data) -> None:
    with pytest.raises(ValueError, match=r"NaN or infinite.*lower lr \(it is 1e\+30\)"):
        MetaWeightNet(epochs=3, lr=1e30, device="cpu").fit(*digits)


def _set_nan(data: list[np.ndarray], index: int, value: float) -> list[np.ndarray]:
    data[index][[3, 8], 2] = value
    return data


MISTAKES = [
    (
        lambda d: _set_nan(d, 0, np.nan),
        "^row 3 of the inputs has NaN or infinite values, the first of 2",
    ),
    (lambda d: _set_nan(d, 2, np.inf), "^row 3 of the meta_inputs has NaN or infinite values"),
    (lambda d: [d[0], d[1][:-1], *d[2:]], "600 inputs but 599 labels"),
    (
        lambda d: [*d[:3], d[3][:, None]],
        r"meta_labels have shape \[100, 1\]: .* as meta_labels\[:, 0\]",
    ),
    (lambda d: [d[0], d[1], d[2][:, :60], d[3]], r"\[600, 64\] and meta_inputs \[100, 60\]"),
    (lambda d: [d[0], d[1] * 0, *d[2:]], "fewer than 2 classes"),
    (lambda d: [*d[:2], d[2][:0], d[3][:0]], "meta_inputs is empty"),
    (lambda d: [d[0], d[1] - 1, *d[2:]], "labels must be class numbers from 0 on, got -1 in row"),
    (lambda d: [d[0], d[1] + 0.5, *d[2:]], "labels are float64: give integers from 0"),
    (lambda d: [d[0].reshape(600, 8, 8), *d[1:]], r"all but the first size must agree"),
    (
        lambda d: [d[0].reshape(600, 8, 8), d[1], d[2].reshape(100, 8, 8), d[3]],
        r"inputs have shape \[600, 8, 8\]: without a classifier, give feature vectors",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_unusable_data_are_named(digits: Data, spoil: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        MetaWeightNet(epochs=1, device="cpu").fit(*spoil([array.copy() for array in digits]))
    assert "\n" not in str(raised.value)


def test_too_few_outputs_and_bad_sizes_are_named(digits: Data) -> None:
    classifier = nn.Linear(64, 9)
    with pytest.raises(ValueError, match="labels reach 9 but the classifier has 9 outputs"):
        MetaWeightNet(classifier, epochs=1, device="cpu").fit(*digits)
    with pytest.raises(ValueError, match="meta_batch_size is 0: give at least 1"):
        MetaWeightNet(meta_batch_size=0)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (np.ones(600), r"extra has shape \[600\]: give one row for each of the 600 samples"),
        (np.ones((599, 1)), r"extra has shape \[599, 1\]"),
        (np.full((600, 1), np.nan), "extra holds NaN or infinite values"),
    ],
)
def test_unusable_extra_columns_are_named(digits: Data, extra: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaWeightNet(epochs=1, device="cpu").fit(*digits, extra=extra)
