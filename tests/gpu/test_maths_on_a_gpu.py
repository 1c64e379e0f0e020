"""On a real GPU: the answers of a CPU, no step that waits, and states that go on where they were left."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet20
from cwerm.algorithms.gradients.meta_step import meta_gradient, meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step
from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet
from cwerm.algorithms.reweighting.weight_net import WeightNet
from cwerm.algorithms.training.augmentation.mixing import mixed
from cwerm.algorithms.training.batches import Normaliser, PixelBatches
from cwerm.algorithms.training.evaluation import logits_of
from cwerm.algorithms.training.fit import Training, fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
CLASSES, SIDE, BATCH = 10, 32, 20
NORMALISE = Normaliser((0.5,) * 3, (0.25,) * 3)
WEIGHT_NET = WeightNet()


@contextmanager
def no_waits() -> Iterator[None]:
    """Whatever makes the host wait for the GPU raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def exact_kernels() -> Iterator[None]:
    """Convolutions in float32, not in TF32."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


def network(name: str = "resnet20") -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=CLASSES)


def images(number: int = 2 * BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (number, 3, SIDE, SIDE)
    return (
        torch.randn(shape, generator=generator),
        torch.randint(CLASSES, (number,), generator=generator),
    )


def pair(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    inputs, labels = (values.to(device) for values in images())
    inputs = inputs.to(dtype)
    return (inputs[:BATCH], labels[:BATCH]), (inputs[BATCH:], labels[BATCH:])


def optimizers(model: nn.Module, net: nn.Module) -> tuple[torch.optim.SGD, torch.optim.Adam]:
    sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    return sgd, torch.optim.Adam(net.parameters(), 1e-3)


def relative(found: list[Tensor], expected: list[Tensor]) -> float:
    left, right = (
        torch.cat([t.double().cpu().flatten() for t in ts]).detach() for ts in (found, expected)
    )
    return float((left - right).norm() / right.norm())


def test_a_meta_gradient_is_that_of_a_cpu_in_double_precision() -> None:
    model, net = network().double(), WeightNet().double()
    on_cpu = meta_gradient(model, net, *pair(CPU, torch.float64), 0.1)
    on_gpu = meta_gradient(model.to(GPU), net.to(GPU), *pair(GPU, torch.float64), 0.1)
    assert all(gradient.device.type == "cuda" for gradient in on_gpu)
    assert relative([*on_gpu], [*on_cpu]) < 1e-9


@pytest.mark.usefixtures("exact_kernels")
def test_a_meta_step_is_near_that_of_a_cpu_in_single_precision() -> None:
    moved = []
    for device in (CPU, GPU):
        model, net = network().to(device), copy.deepcopy(WEIGHT_NET).to(device)
        meta_step(model, net, *pair(device), *optimizers(model, net), 0.01)
        moved.append([*model.parameters()])
    before = [*network().parameters()]
    steps = [[p.cpu() - b for p, b in zip(after, before, strict=True)] for after in moved]
    assert relative(steps[1], steps[0]) < 1e-3


@pytest.mark.parametrize("kind", ["network", "head"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_meta_steps_wait_for_nothing(kind: str, autocast: torch.dtype | None) -> None:
    batch, meta_batch = pair(GPU)
    model = network().to(GPU)
    if kind == "head":
        batch, meta_batch = ((x.flatten(1), y) for x, y in (batch, meta_batch))
        model = feature_head(batch[0], CLASSES).to(GPU)
    net = WeightNet().to(GPU)
    sgd, adam = optimizers(model, net)
    meta_step(model, net, batch, meta_batch, sgd, adam, 0.01)
    options = StepOptions(autocast=autocast, checked=True)
    with no_waits():
        for _ in range(2):
            meta_step(model, net, batch, meta_batch, sgd, adam, 0.01, options=options)
            reweight_step(model, batch, meta_batch, sgd, options)


def test_what_waits_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="synchroniz"), no_waits():
        torch.ones(3, device=GPU).sum().item()


RECIPES: list[dict[str, Any]] = [
    {"crop_padding": 4, "flip": True},
    {"optimizer": "adamw", "clip_gradient_norm": 1.0, "ema": 0.999, "label_smoothing": 0.1},
    {"mixup": 0.2, "accumulate": 3, "crop": "resized", "augment": "rand"},
    {"cutmix": 1.0, "augment": "trivial", "flip": True, "loss": "focal"},
    {"loss": "small_loss", "wrong_share": 0.2},
]


def batches_on(device: torch.device, recipe: Recipe) -> PixelBatches:
    generator = torch.Generator().manual_seed(2)
    shape = (100, 3, SIDE, SIDE)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(CLASSES, (100,), generator=generator).to(device)
    weights = (2 * torch.rand(100, generator=generator)).to(device)
    return PixelBatches(pixels, labels, weights, NORMALISE, recipe, Ranks(device=device))


@pytest.mark.parametrize("asked", RECIPES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_of_a_training_wait_for_nothing(asked: dict[str, Any], precision: Any) -> None:
    recipe = Recipe(epochs=3, batch_size=BATCH, precision=precision, **asked)
    batches = batches_on(GPU, recipe)
    training = Training(network(), batches, recipe, Ranks(device=GPU))
    training.model.train()
    sums = torch.zeros(2, device=GPU, dtype=torch.float64)
    epoch = iter(batches.epoch(0))

    def take(step: int) -> None:
        training.step(0, 0.1, mixed(next(epoch), recipe, training.ranks, 0, step), sums)
        if training.average is not None:
            training.average.update(step)

    take(0)
    take(1)
    with no_waits():
        take(2)
        take(3)
    assert sums.isfinite().all()


def test_an_evaluation_waits_for_nothing() -> None:
    model, inputs = network().to(GPU), images()[0].to(GPU)
    pixels = (inputs.clamp(0, 1) * 255).byte()
    logits_of(model, pixels, NORMALISE)
    with no_waits():
        found = logits_of(model, pixels, NORMALISE)
    assert found.shape == (2 * BATCH, CLASSES)


@pytest.mark.usefixtures("exact_kernels")
def test_a_training_is_near_that_of_a_cpu() -> None:
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=0.01, crop_padding=4, flip=True)
    losses = []
    for device in (CPU, GPU):
        model = network().to(device)
        [metrics] = fit(model, batches_on(device, recipe), recipe, Ranks(device=device))
        losses.append(metrics["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(("first", "second"), [(GPU, GPU), (CPU, GPU), (GPU, CPU)])
def test_a_training_goes_on_in_mid_epoch(first: torch.device, second: torch.device) -> None:
    recipe = Recipe(epochs=2, batch_size=BATCH, lr=0.01, ema=0.9, optimizer="adamw")
    whole = Training(network(), batches_on(first, recipe), recipe, Ranks(device=first))
    states: list[Any] = []

    def keep(epoch: int, step: int, loss: Tensor) -> None:
        del loss
        if (epoch, step) == (1, 2):
            states.append(copy.deepcopy(whole.state_within()))

    for epoch in range(2):
        whole.history.append(whole.epoch(epoch, keep))
    other = Training(network(), batches_on(second, recipe), recipe, Ranks(device=second))
    other.check(states[0])
    other.restore(states[0])
    other.history.append(other.epoch(1))
    expected, found = (t.history[-1]["train_loss"] for t in (whole, other))
    assert found == pytest.approx(expected, rel=0.02)
    assert other.judged.state_dict().keys() == whole.judged.state_dict().keys()


def test_weights_tell_wrong_labels_apart_and_go_on() -> None:
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)
    draws = np.random.default_rng(0)
    wrong = draws.random(600) < 0.4
    noisy = np.where(wrong, (labels[:600] + draws.integers(1, 10, 600)) % 10, labels[:600])
    data = (features[:600], noisy, features[600:700], labels[600:700])
    states: list[Any] = []
    weights = MetaWeightNet(epochs=40, device="cuda").fit(
        *data, on_epoch=lambda epoch, state: states.append(state()) if epoch == 20 else None
    )
    again = MetaWeightNet(epochs=40, device="cuda").fit(*data, state=states[0])
    assert roc_auc_score(~wrong, weights) > 0.9
    np.testing.assert_allclose(again, weights, rtol=0.05, atol=0.02)
    assert roc_auc_score(~wrong, LearningToReweight(epochs=40, device="cuda").fit(*data)) > 0.7


@pytest.mark.usefixtures("exact_kernels")
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_features_are_near_those_of_a_cpu(precision: str, limit: float) -> None:
    backbone = load_backbone("resnet18", "random", 64)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    on_cpu = embed(backbone, pixels)
    on_gpu = embed(backbone, pixels, GPU, precision, 4)
    assert on_gpu.dtype == np.float32
    assert relative([torch.from_numpy(on_gpu)], [torch.from_numpy(on_cpu)]) < limit


def test_batches_are_those_of_a_cpu() -> None:
    recipe = Recipe(epochs=1, batch_size=BATCH, crop_padding=4, flip=True, augment="rand")
    pairs = zip(*(islice(batches_on(d, recipe).epoch(0), 3) for d in (CPU, GPU)), strict=True)
    for on_cpu, on_gpu in pairs:
        torch.testing.assert_close(on_gpu.labels.cpu(), on_cpu.labels)
        torch.testing.assert_close(on_gpu.inputs.cpu(), on_cpu.inputs, rtol=0, atol=0.04)
