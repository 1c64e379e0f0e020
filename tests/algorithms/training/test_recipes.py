"""What a recipe can ask for, each against the same written out, or against another way to the same result."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from small_training import SAMPLES, assert_close, batches, model, normalised, on_two_ranks
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn import functional

from cwerm.algorithms.training.erm import weighted_loss
from cwerm.algorithms.training.fit import Training, fit
from cwerm.algorithms.training.optimizing.optimizer import load_optimizer, make_optimizer, set_lr
from cwerm.algorithms.training.optimizing.schedule import Schedule
from cwerm.algorithms.training.ranks import CPU, Ranks
from cwerm.algorithms.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=24, lr=0.05, seed=3)
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_a_warmup_is_a_line_and_then_a_cosine() -> None:
    recipe = Recipe(epochs=10, lr=0.4, warmup_epochs=1.5)
    schedule = Schedule.of(recipe, 20)
    found = [schedule.lr_at(step) for step in range(200)]
    line = [0.4 * (step + 1) / 30 for step in range(30)]
    cosine = [0.2 * (1 + math.cos(math.pi * step / 170)) for step in range(170)]
    np.testing.assert_allclose(found, line + cosine, rtol=1e-12)


@pytest.mark.parametrize(
    ("max_steps", "epochs", "last"),
    [(None, 3, 10), (7, 1, 7), (20, 2, 10), (21, 3, 1), (99, 3, 10)],
)
def test_a_training_ends_at_the_first_of_epochs_and_steps(
    max_steps: int | None, epochs: int, last: int
) -> None:
    schedule = Schedule.of(Recipe(epochs=3, max_steps=max_steps), 10)
    assert (schedule.epochs, schedule.steps_in(schedule.epochs - 1)) == (epochs, last)
    assert schedule.steps == min(30, max_steps or 30)
    assert schedule.lr_at(schedule.steps) == pytest.approx(0, abs=1e-15)


def test_a_training_of_few_steps_takes_no_more() -> None:
    taken: list[tuple[int, int]] = []
    recipe = replace(RECIPE, epochs=9, max_steps=6)
    history = fit(model(), batches(recipe), recipe, on_step=lambda e, s, _: taken.append((e, s)))
    assert taken == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert history[-1]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 5 / 6)) / 2)
    assert len(history) == 2


def test_a_warmup_leaves_something_to_train() -> None:
    with pytest.raises(ValueError, match="a warmup of 20 steps, and a training of 20"):
        Schedule.of(Recipe(epochs=5, warmup_epochs=2.0, max_steps=20), 10)


def plainly(recipe: Recipe, optimizer: torch.optim.Optimizer, net: nn.Module) -> nn.Module:
    """The training written out, with another optimizer."""
    schedule, data, done = Schedule.of(recipe, 4), batches(recipe), 0
    for epoch in range(recipe.epochs):
        for batch in data.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(done)
            each = functional.cross_entropy(
                net(batch.inputs),
                batch.labels,
                reduction="none",
                label_smoothing=recipe.label_smoothing,
            )
            optimizer.zero_grad()
            (batch.weights * each).mean().backward()
            if (longest := recipe.clip_gradient_norm) is not None:
                gradients = [p.grad for p in net.parameters() if p.grad is not None]
                length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
                for gradient in gradients:
                    gradient *= min(1.0, longest / (length + 1e-6))
            optimizer.step()
            done += 1
    return net


def test_adamw_decays_matrices_and_kernels_alone() -> None:
    recipe = replace(RECIPE, optimizer="adamw", lr=0.01, weight_decay=0.3, betas=(0.8, 0.95))
    net, plain = normalised(), normalised()
    fit(net, batches(recipe), recipe)
    decayed = [p for name, p in plain.named_parameters() if name in ("0.weight", "4.weight")]
    others = [p for name, p in plain.named_parameters() if name not in ("0.weight", "4.weight")]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95))
    assert_close(net, plainly(recipe, adam, plain.train()))
    without = replace(recipe, weight_decay=0.0)
    other = normalised()
    fit(other, batches(without), without)
    assert not torch.allclose(other.state_dict()["0.weight"], net.state_dict()["0.weight"])


def test_adamw_spares_what_timm_spares() -> None:
    net = timm.create_model("test_vit", num_classes=5)
    groups = make_optimizer(net, Recipe(epochs=1, optimizer="adamw"), CPU).param_groups
    expected = param_groups_weight_decay(net, 5e-4, no_weight_decay_list=net.no_weight_decay())
    by_decay = {group["weight_decay"]: {*map(id, group["params"])} for group in groups}
    assert by_decay == {g["weight_decay"]: {*map(id, g["params"])} for g in expected}


def test_sgd_decays_all_in_one_group() -> None:
    net = normalised()
    (group,) = make_optimizer(net, RECIPE, CPU).param_groups
    assert [*map(id, group["params"])] == [*map(id, net.parameters())]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_last_layer_has_a_rate_of_its_own(optimizer: str) -> None:
    net = timm.create_model("test_resnet", num_classes=5)
    recipe = Recipe(epochs=1, optimizer=optimizer, head_lr_factor=10.0)  # type: ignore[arg-type]
    made = make_optimizer(net, recipe, CPU)
    set_lr(made, 0.02)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    head = {*map(id, net.get_classifier().parameters())}
    assert len(rates) == len([*net.parameters()])
    for name, parameter in net.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 if id(parameter) in head else 0.02), name
    with pytest.raises(ValueError, match="does not say which layer is its last"):
        make_optimizer(model(), recipe, CPU)


def test_an_optimizer_keeps_its_own_kernels() -> None:
    net, recipe = model(), replace(RECIPE, optimizer="adamw")
    made = make_optimizer(net, recipe, CPU)
    net(torch.zeros(1, 3, 8, 8)).sum().backward()
    made.step()
    state = made.state_dict()
    for group in state["param_groups"]:
        group["fused"] = True  # as on a GPU
    again = make_optimizer(net, recipe, CPU)
    load_optimizer(again, state)
    assert [group["fused"] for group in again.param_groups] == [False, False]
    assert again.state_dict()["state"].keys() == state["state"].keys()


@pytest.mark.parametrize("longest", [0.05, 1e6])
def test_long_gradients_are_cut(longest: float) -> None:
    recipe, net, plain = replace(RECIPE, clip_gradient_norm=longest), model(), model()
    fit(net, batches(recipe), recipe)
    sgd = torch.optim.SGD(plain.parameters(), 0.05, 0.9, weight_decay=5e-4)
    assert_close(net, plainly(recipe, sgd, plain))
    uncut = model()
    fit(uncut, batches(RECIPE), RECIPE)
    cut = not torch.allclose(uncut.state_dict()["0.weight"], net.state_dict()["0.weight"])
    assert cut == (longest < 1)


def test_smoothed_labels_by_their_formula() -> None:
    logits = torch.randn(7, 4, dtype=torch.float64)
    labels, weights = torch.randint(4, (7,)), torch.rand(7, dtype=torch.float64)
    beliefs = 0.8 * functional.one_hot(labels, 4) + 0.2 / 4
    expected = -(weights @ (beliefs * logits.log_softmax(1)).sum(1)) / 7
    found = weighted_loss(logits, labels, weights, 7, label_smoothing=0.2)
    torch.testing.assert_close(found, expected)
    # beliefs are smoothed likewise
    given = functional.one_hot(labels, 4).double()
    torch.testing.assert_close(
        weighted_loss(logits, given, weights, 7, label_smoothing=0.2), expected
    )


def test_the_average_is_that_of_a_loop() -> None:
    recipe = replace(RECIPE, ema=0.7, epochs=3)
    training = Training(normalised(), batches(recipe), recipe, Ranks())
    average = {k: v.double().numpy() for k, v in copy.deepcopy(training.model.state_dict()).items()}
    states: list[dict[str, np.ndarray]] = []

    def note(*_: object) -> None:
        # a step is told before its average is asked for again: the model is that after the step
        state = training.model.state_dict()
        states.append({k: v.double().numpy().copy() for k, v in state.items()})

    for epoch in range(3):
        training.history.append(training.epoch(epoch, note))
    for step, state in enumerate(states):
        decay = min(0.7, (1 + step) / (10 + step))
        for name, value in state.items():
            average[name] = decay * average[name] + (1 - decay) * value
    found = training.judged.state_dict()
    assert found["1.num_batches_tracked"] == 12
    for name, value in average.items():
        if name != "1.num_batches_tracked":
            np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-5, atol=1e-6)
    assert training.judged is not training.model
    assert not torch.allclose(found["0.weight"], training.model.state_dict()["0.weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_state_goes_on_bit_for_bit(optimizer: str) -> None:
    recipe = replace(RECIPE, ema=0.9, epochs=3, optimizer=optimizer, mixup=0.3, cutmix=1.0)
    recipe = replace(recipe, accumulate=2, warmup_epochs=0.5, augment="trivial", crop="resized")
    whole = Training(normalised(), batches(recipe), recipe, Ranks())
    for epoch in range(3):
        whole.history.append(whole.epoch(epoch))
        if epoch == 0:
            state = copy.deepcopy(whole.state())
    resumed = Training(normalised(), batches(recipe), recipe, Ranks())
    resumed.check(state)
    resumed.restore(state)
    for epoch in (1, 2):
        resumed.history.append(resumed.epoch(epoch))
    for pair in zip(_tensors(whole), _tensors(resumed), strict=True):
        assert torch.equal(*pair)
    torn = {**state, "average": {"0.weight": torch.zeros(1)}}
    with pytest.raises(ValueError, match="of another model"):
        resumed.check(torn)


def _tensors(training: Training) -> list[torch.Tensor]:
    both = training.model, training.judged
    return [value for made in both for value in made.state_dict().values()]


@pytest.mark.parametrize("accumulate", [2, 5, 24])
def test_parts_of_a_batch_are_the_batch(accumulate: int) -> None:
    recipe = replace(RECIPE, accumulate=accumulate, mixup=0.4)
    net, whole = model(), model()
    found = fit(net, batches(recipe), recipe)
    expected = fit(whole, batches(recipe), replace(recipe, accumulate=1))
    assert_close(net, whole)
    for name in ("train_loss", "train_accuracy"):
        assert found[-1][name] == pytest.approx(expected[-1][name], rel=1e-5)


def test_parts_of_a_batch_are_counted() -> None:
    recipe, net = replace(RECIPE, accumulate=3), normalised()
    fit(net, batches(recipe), recipe)
    assert net.state_dict()["1.num_batches_tracked"] == 2 * 3 * SAMPLES / 24


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"accumulate": 3, "clip_gradient_norm": 0.3, "optimizer": "adamw", "lr": 0.01},
        {"mixup": 0.4, "cutmix": 1.0, "augment": "rand", "crop": "resized", "warmup_epochs": 1.0},
    ],
)
def test_two_ranks_train_what_one_does(more: dict[str, object], tmp_path: Path) -> None:
    recipe = replace(RECIPE, **more)  # type: ignore[arg-type]
    net = model()
    fit(net, batches(recipe), recipe)
    for state in on_two_ranks(recipe, tmp_path):
        assert_close(state, net, rtol=1e-4, atol=1e-5)
