"""A head on features is trained as plain PyTorch would train it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from cwerm.algorithms.networks.heads import make_head
from cwerm.algorithms.training import erm
from cwerm.algorithms.training.batches import FeatureBatches, Standardiser
from cwerm.algorithms.training.fit import fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe

SAMPLES, WIDTH, CLASSES = 90, 12, 4
RECIPE = Recipe(epochs=3, batch_size=20, lr=0.05, momentum=0.8, weight_decay=1e-3, seed=5)


def made_up() -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Features of unlike scales, one of them constant; labels; weights."""
    random = np.random.default_rng(1)
    features = random.normal(3, np.arange(1, WIDTH + 1), (SAMPLES, WIDTH))
    features[:, 0] = 7
    labels = torch.from_numpy(random.integers(0, CLASSES, SAMPLES))
    weights = torch.from_numpy(random.uniform(0, 2, SAMPLES).astype(np.float32))
    return features.astype(np.float16), labels, weights


def batches(ranks: Ranks | None = None) -> FeatureBatches:
    features, labels, weights = made_up()
    normalise = Standardiser.of(features)
    return FeatureBatches(
        torch.from_numpy(features), labels, weights, normalise, RECIPE, ranks or Ranks()
    )


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_head_equals_a_plain_loop(name: str) -> None:
    head = make_head(name, WIDTH, CLASSES, seed=3)
    history = fit(head, batches(), RECIPE)

    features, labels, weights = made_up()
    values = features.astype(np.float64)
    deviation = np.where(values.std(axis=0) > 0, values.std(axis=0), 1)
    inputs = torch.from_numpy(((values - values.mean(axis=0)) / deviation).astype(np.float32))
    expected = make_head(name, WIDTH, CLASSES, seed=3)
    optimizer = torch.optim.SGD(expected.parameters(), 0.05, momentum=0.8, weight_decay=1e-3)
    steps = math.ceil(SAMPLES / 20)
    for epoch in range(3):
        for step, rows in enumerate(erm.epoch_batches(SAMPLES, 20, 5, epoch)):
            position = (epoch * steps + step) / (3 * steps)
            optimizer.param_groups[0]["lr"] = 0.025 * (1 + math.cos(math.pi * position))
            each = functional.cross_entropy(expected(inputs[rows]), labels[rows], reduction="none")
            loss = (weights[rows] * each).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(head.state_dict()[key], value, rtol=1e-4, atol=1e-5)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_same_seed_gives_the_same_head_whatever_was_drawn_before() -> None:
    first = make_head("mlp", WIDTH, CLASSES, seed=3).state_dict()
    torch.rand(7)
    again, other = (make_head("mlp", WIDTH, CLASSES, seed=seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    with pytest.raises(ValueError, match="unknown head 'forest'; choose one of linear, mlp"):
        make_head("forest", WIDTH, CLASSES)


def test_ranks_share_each_batch() -> None:
    one = [*batches().epoch(1)]
    two = [[*batches(Ranks(2, rank)).epoch(1)] for rank in range(2)]
    for whole, parts in zip(one, zip(*two, strict=True), strict=True):
        assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))
        assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
