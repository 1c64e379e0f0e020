"""The evaluation equals scikit-learn's figures, in one piece or merged."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, recall_score, top_k_accuracy_score

from cwerm.algorithms.training.evaluation import Evaluation


def _sample(size: int, num_classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, num_classes, generator=generator) * 2
    return logits, torch.randint(num_classes, (size,), generator=generator)


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            accuracy = (predicted == labels)[inside].mean()
            error += inside.mean() * abs(accuracy - confidence[inside].mean())
    return error


@given(st.integers(200, 400), st.integers(2, 12), st.integers(0, 2**31), st.integers(1, 5))
def test_equals_scikit_learn_however_it_is_split(
    size: int, num_classes: int, seed: int, parts: int
) -> None:
    logits, labels = _sample(size, num_classes, seed)
    pieces = zip(logits.tensor_split(parts), labels.tensor_split(parts), strict=True)
    summary = reduce(Evaluation.merge, (Evaluation.from_logits(*p) for p in pieces)).summary()

    probabilities, truth = logits.double().softmax(1).numpy(), labels.numpy()
    classes = np.arange(num_classes)
    predicted = probabilities.argmax(1)
    assert summary["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert summary["loss"] == pytest.approx(log_loss(truth, probabilities, labels=classes))
    recall = recall_score(truth, predicted, labels=classes, average=None, zero_division=np.nan)
    ours = [np.nan if value is None else value for value in summary["per_class_accuracy"]]
    np.testing.assert_allclose(ours, recall)
    assert summary["expected_calibration_error"] == pytest.approx(
        _calibration_error(probabilities, truth)
    )
    rows = np.array(summary["reliability"])
    assert rows[:, 0].sum() == size
    assert rows[:, 0] @ rows[:, 1] == pytest.approx(probabilities.max(1).sum())
    assert rows[:, 0] @ rows[:, 2] == pytest.approx(size * summary["accuracy"])
    if num_classes < 5:
        assert summary["accuracy_top5"] is None
    elif num_classes == 5:
        assert summary["accuracy_top5"] == 1
    else:
        top5 = top_k_accuracy_score(truth, logits.numpy(), k=5, labels=classes)
        assert summary["accuracy_top5"] == pytest.approx(top5)


def test_a_class_without_samples_has_no_accuracy() -> None:
    summary = Evaluation.from_logits(torch.eye(3)[:2], torch.tensor([0, 0])).summary()
    assert summary["per_class_accuracy"] == [0.5, None, None]


def test_certain_predictions_fall_in_the_last_bin() -> None:
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    summary = Evaluation.from_logits(logits, torch.tensor([0, 1])).summary()
    assert summary["expected_calibration_error"] == pytest.approx(0.5)
    assert summary["reliability"] == [[2, 1.0, 0.5]]


def test_nan_is_an_error() -> None:
    with pytest.raises(ValueError, match="logits are NaN or infinite"):
        Evaluation.from_logits(torch.tensor([[0.0, torch.nan]]), torch.tensor([0]))
