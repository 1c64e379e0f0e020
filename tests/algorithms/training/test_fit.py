"""The training loop alone: against plain PyTorch, on one rank and on two."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from small_training import CLASSES, SAMPLES, SIDE, batches, model
from torch import nn
from torch.nn import functional

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.fit import DivergedError, Training, fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=20, lr=0.05, crop_padding=2, flip=True, seed=3)
pytestmark = pytest.mark.usefixtures("on_one_thread")


def plain_loop(recipe: Recipe) -> tuple[nn.Module, list[float]]:
    """The same training, written out; and the mean loss of each epoch."""
    data, net = batches(recipe), model()
    values = data.samples.float() / 255
    mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3), correction=0)
    optimizer = torch.optim.SGD(
        net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    losses = []
    for epoch in range(recipe.epochs):
        order = erm.epoch_batches(SAMPLES, recipe.batch_size, recipe.seed, epoch)
        offsets, flips = erm.augmentation_draws(SAMPLES, recipe.seed, epoch, recipe.crop_padding)
        total = 0.0
        for step, rows in enumerate(order):
            done = (epoch * len(order) + step) / (recipe.epochs * len(order))
            optimizer.param_groups[0]["lr"] = recipe.lr * (1 + math.cos(math.pi * done)) / 2
            crops = []
            for row in rows:
                padded = functional.pad(data.samples[row], [recipe.crop_padding] * 4)
                top, left = offsets[row]
                crop = padded[:, top : top + SIDE, left : left + SIDE]
                crops.append(crop.flip(2) if recipe.flip and flips[row] else crop)
            inputs = (torch.stack(crops).float() / 255 - mean[:, None, None]) / std[:, None, None]
            each = functional.cross_entropy(net(inputs), data.labels[rows], reduction="none")
            loss = (data.weights[rows] * each).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        losses.append(total / SAMPLES)
    return net, losses


def assert_close(found: nn.Module, expected: nn.Module) -> None:
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(epochs=2, batch_size=40, lr=0.1)])
def test_fit_equals_a_plain_loop(recipe: Recipe) -> None:
    net, steps = model(), []
    history = fit(net, batches(recipe), recipe, on_step=lambda *step: steps.append(step))
    expected, losses = plain_loop(recipe)
    assert_close(net, expected)
    np.testing.assert_allclose([made["train_loss"] for made in history], losses, rtol=1e-5)
    number = math.ceil(SAMPLES / recipe.batch_size)
    assert [step[:2] for step in steps] == [(e, s) for e in range(2) for s in range(number)]


def test_batch_norm_counts_its_steps() -> None:
    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            over_all_steps = nn.BatchNorm2d(6, momentum=None)
            frozen = nn.BatchNorm2d(6, track_running_stats=False)
            return nn.Sequential(
                *(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), over_all_steps, frozen, nn.ReLU()),
                *(nn.Flatten(), nn.Linear(54, CLASSES)),
            )

    net, plain, recipe = make(), make(), Recipe(epochs=2, batch_size=20, lr=0.0)
    fit(net, batches(recipe), recipe)
    plain.train()
    for epoch in range(2):
        for batch in batches(recipe).epoch(epoch):
            plain(batch.inputs)
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert_close(net, plain)
    assert int(net.state_dict()["1.num_batches_tracked"]) == 2 * math.ceil(SAMPLES / 20)


def test_in_bfloat16_it_learns_nearly_the_same() -> None:
    exact, coarse = (
        fit(model(), batches(recipe), recipe)[-1]["train_loss"]
        for recipe in (RECIPE, replace(RECIPE, precision="bfloat16"))
    )
    assert coarse == pytest.approx(exact, rel=0.01)
    assert coarse != exact


def test_a_state_goes_on_as_if_nothing_had_happened() -> None:
    first = Training(model(), batches(RECIPE), RECIPE, Ranks())
    first.history.append(first.epoch(0))
    state = first.state()
    second = Training(model(), batches(RECIPE), RECIPE, Ranks())
    second.check(state)
    second.restore(state)
    second.history.append(second.epoch(1))
    assert_close(second.model, plain_loop(RECIPE)[0])
    assert [made["epoch"] for made in second.history] == [0, 1]


def test_a_loss_that_is_no_number_ends_it() -> None:
    recipe = Recipe(epochs=2, batch_size=20, lr=1e18)
    with pytest.raises(DivergedError, match=r"the training loss is (nan|inf) in epoch"):
        fit(model(), batches(recipe), recipe)


def two_ranks(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    ranks, net = Ranks(2, rank), model()
    history = fit(net, batches(RECIPE, ranks), RECIPE, ranks)
    torch.save((net.state_dict(), history[-1]["train_loss"]), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(two_ranks, (tmp_path,), nprocs=2)
    expected, losses = plain_loop(RECIPE)
    for rank in range(2):
        state, loss = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert loss == pytest.approx(losses[-1], rel=1e-4)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
