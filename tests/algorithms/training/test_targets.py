"""What a network learns instead of a label: against plain loops, and against labels themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cwerm.algorithms.training.batches import Normaliser, PixelBatches
from cwerm.algorithms.training.erm import weighted_loss
from cwerm.algorithms.training.fit import fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.targets import (
    MOST_CLASSES,
    SURE,
    Beliefs,
    most_probable,
    on_device,
    relabelled,
)

CPU = torch.device("cpu")


def drawn(samples: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), samples).astype(np.float32)


@given(st.integers(1, 12), st.integers(2, 60), st.integers(0, 99))
def test_the_most_probable_classes_are_kept(samples: int, classes: int, seed: int) -> None:
    belief = drawn(samples, classes, seed)
    kept = most_probable(belief)
    dense = on_device(kept, CPU).dense(classes).numpy()
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=1e-5)
    if classes <= MOST_CLASSES:
        np.testing.assert_array_equal(dense, belief)
    for row, values in zip(dense, belief, strict=True):
        least = np.sort(values)[-min(classes, MOST_CLASSES)]
        expected = np.where(values >= least, values, 0)
        np.testing.assert_allclose(row, expected / expected.sum(), atol=1e-5)


def test_labels_and_weights_after_relabelling_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    labels, suggested = random.integers(0, 5, 200), random.integers(0, 5, 200)
    weights, probability = random.random(200), random.uniform(0.7, 1, 200)
    found, scaled = relabelled(labels, weights, suggested, probability)
    expected = []
    for i in range(200):
        another = suggested[i] != labels[i] and probability[i] > SURE
        assert found[i] == (suggested[i] if another else labels[i])
        expected.append(2 * probability[i] - 1 if another else weights[i])
    np.testing.assert_allclose(scaled, expected / np.mean(expected), rtol=1e-12)


def test_the_loss_of_a_belief_is_its_mean_over_the_classes() -> None:
    """The sum over classes of what each would lose as the label, by NumPy."""
    torch.manual_seed(0)
    logits, weights = torch.randn(30, 4, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    belief = torch.from_numpy(drawn(30, 4, 1)).double()
    found = weighted_loss(logits, belief, weights, 40, 2)
    chances = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    losses = -(belief.numpy() * np.log(chances)).sum(axis=1)
    assert found.item() == pytest.approx(float(weights.numpy() @ losses * 2 / 40), rel=1e-12)


@pytest.mark.usefixtures("on_one_thread")
def test_certain_beliefs_train_as_labels_do() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    labels, weights = torch.randint(0, 3, (60,)), torch.rand(60)
    recipe = Recipe(epochs=2, batch_size=20, lr=0.05, crop_padding=1, flip=True)
    trained = []
    for certain in (None, most_probable(np.eye(3, dtype=np.float32)[labels.numpy()])):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
        normalise = Normaliser.of(images.numpy())
        data = PixelBatches(images, labels, weights, normalise, recipe, Ranks(), beliefs=certain)
        history = fit(model, data, recipe)
        trained.append((model[1].weight.detach().numpy(), history[-1]["train_accuracy"]))
    np.testing.assert_allclose(trained[0][0], trained[1][0], atol=1e-6)
    assert trained[0][1] == trained[1][1]


def test_a_batch_has_the_beliefs_of_its_samples() -> None:
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 4, 4)
    belief = drawn(12, 3, 2)
    recipe = Recipe(epochs=1, batch_size=5)
    normalise = Normaliser((0.0,) * 3, (1 / 255,) * 3)
    data = PixelBatches(
        images, torch.zeros(12, dtype=torch.long), torch.ones(12), normalise, recipe, Ranks(),
        beliefs=most_probable(belief),
    )  # fmt: skip
    for batch in data.epoch(0):
        rows = batch.inputs[:, 0, 0, 0].round().long().numpy()
        assert isinstance(batch.beliefs, Beliefs)
        np.testing.assert_array_equal(batch.beliefs.dense(3).numpy(), belief[rows])
