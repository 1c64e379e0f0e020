"""No step of a training, an evaluation or an extraction waits for a GPU.

The GPU is one that torch imagines: operations have devices, shapes and types there, and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet20
from cwerm.algorithms.networks import features
from cwerm.algorithms.networks.heads import make_head
from cwerm.algorithms.networks.preprocessing import InputSpec
from cwerm.algorithms.training import batches
from cwerm.algorithms.training.augmentation.mixing import mixed
from cwerm.algorithms.training.augmentation.operations import OPERATIONS
from cwerm.algorithms.training.batches import (
    Batch,
    Batches,
    FeatureBatches,
    Normaliser,
    PixelBatches,
)
from cwerm.algorithms.training.evaluation import logits_of
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.optimizing import averaging
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Loss, Recipe
from cwerm.algorithms.training.targets import Beliefs

SAMPLES, CLASSES, SIDE = 50, 10, 32
GPU = torch.device("cuda", 0)
FUSED = torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_adamw_.default


class Waits(TorchDispatchMode):
    """Notes each operation that copies between host and device, or asks the device for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation in FUSED:
            return None  # torch can't imagine these; each is a single kernel, on the device
        try:
            made = operation(*args, **(kwargs or {}))
        except (DataDependentOutputException, DynamicOutputShapeException):
            self.seen.append(str(operation))
            raise
        tensors = [value for value in (*args, made) if isinstance(value, Tensor)]
        name = operation.overloadpacket.__name__
        copies = name in ("_to_copy", "copy_", "to")
        if copies and len({value.device.type for value in tensors}) > 1:
            self.seen.append(str(operation))
        return made


@pytest.fixture(autouse=True)
def imagined_gpu() -> Iterator[None]:
    kept = batches._scale_and_shift, features._constants
    for cache in kept:
        cache.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    for cache in kept:
        cache.cache_clear()


def on_gpu(make: Callable[[], nn.Module]) -> Any:
    """A model that is on the imagined GPU, as none can be moved there."""
    with GPU:
        model: Any = make()
    model.to = lambda *_, **__: model
    return model


def classifier() -> Any:
    return on_gpu(lambda: timm.create_model("resnet20", num_classes=CLASSES))


def pixels() -> Tensor:
    return torch.zeros(SAMPLES, 3, SIDE, SIDE, dtype=torch.uint8, device=GPU)


def of_pixels(recipe: Recipe, beliefs: Beliefs | None = None) -> Batches:
    labels = torch.zeros(SAMPLES, dtype=torch.int64, device=GPU)
    normalise = Normaliser((0.5,) * 3, (0.2,) * 3)
    weights = torch.ones(SAMPLES, device=GPU)
    return PixelBatches(
        pixels(), labels, weights, normalise, recipe, Ranks(device=GPU), None, beliefs
    )


def waits_of_steps(model: Any, made: Batches, recipe: Recipe) -> list[str]:
    """What the steps after the first wait for; the gradients are imagined, too."""
    training = Training(model, made, recipe, Ranks(device=GPU))
    sums = torch.zeros(2, device=GPU, dtype=torch.float64)
    model.train()
    epoch = made.epoch(0)

    def take(number: int, batch: Batch) -> None:
        training.step(0, 0.1, mixed(batch, recipe, training.ranks, 0, number), sums)
        if training.average is not None:
            training.average.update(number)

    with Waits():
        take(0, next(epoch))
    with Waits() as waits:
        for number, batch in enumerate(epoch, 1):
            take(number, batch)
    return waits.seen


@pytest.fixture(autouse=True)
def without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd's engine and pinned memory want a real GPU: gradients are zeros, made where the loss is."""

    def backward(loss: Tensor) -> None:
        assert loss.device == GPU
        seen, todo = set(), [loss.grad_fn]
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if isinstance(parameter := getattr(node, "variable", None), Tensor):
                parameter.grad = torch.zeros_like(parameter)
            todo += [before for before, _ in node.next_functions]

    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(Tensor, "pin_memory", lambda pixels: pixels)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "gce", "small_loss"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_on_images(loss: Loss, precision: Any) -> None:
    recipe = Recipe(
        epochs=2,
        batch_size=16,
        crop_padding=4,
        flip=True,
        loss=loss,
        wrong_share=0.2,
        precision=precision,
    )
    assert waits_of_steps(classifier(), of_pixels(recipe), recipe) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"optimizer": "adamw", "clip_gradient_norm": 1.0, "ema": 0.999, "label_smoothing": 0.1},
        {"mixup": 0.2, "accumulate": 3, "crop": "resized", "augment": "rand", "warmup_epochs": 0.5},
        {"cutmix": 1.0, "augment": "trivial", "flip": True, "crop_padding": 4},
        {"head_lr_factor": 10.0, "mixup": 0.2, "cutmix": 1.0, "loss": "focal"},
    ],
)
def test_steps_of_recipes(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # what is only imagined can't be copied: it has no memory
    monkeypatch.setattr(averaging, "copy", SimpleNamespace(deepcopy=lambda _: classifier()))
    recipe = Recipe(epochs=2, batch_size=16, **asked)
    assert waits_of_steps(classifier(), of_pixels(recipe), recipe) == []


@pytest.mark.parametrize("name", [*OPERATIONS])
def test_an_operation_on_images(name: str) -> None:
    strengths = torch.ones(SAMPLES, device=GPU)
    with Waits() as waits:
        made = OPERATIONS[name](pixels(), strengths)
    assert made.device == GPU
    assert waits.seen == []


def test_steps_on_beliefs() -> None:
    recipe = Recipe(epochs=2, batch_size=16)
    beliefs = Beliefs(
        np.tile(np.arange(CLASSES, dtype=np.int32), (SAMPLES, 1)),
        np.full((SAMPLES, CLASSES), 0.1, np.float32),
    )
    assert waits_of_steps(classifier(), of_pixels(recipe, beliefs), recipe) == []


def test_steps_on_features() -> None:
    recipe, width = Recipe(epochs=2, batch_size=16), 8
    made = FeatureBatches(
        torch.zeros(SAMPLES, width, dtype=torch.float16, device=GPU),
        torch.zeros(SAMPLES, dtype=torch.int64, device=GPU),
        torch.ones(SAMPLES, device=GPU),
        batches.Standardiser(torch.zeros(width, device=GPU), torch.ones(width, device=GPU)),
        recipe,
        Ranks(device=GPU),
    )
    head = on_gpu(lambda: make_head("mlp", width, CLASSES, seed=0))
    assert waits_of_steps(head, made, recipe) == []


def test_an_evaluation() -> None:
    model, normalise = classifier(), Normaliser((0.5,) * 3, (0.2,) * 3)
    logits_of(model, pixels(), normalise)
    with Waits() as waits:
        logits = logits_of(model, pixels(), normalise)
    assert logits.device == GPU
    assert waits.seen == []


def test_an_extraction_copies_pixels_and_nothing_else() -> None:
    module = classifier()
    module.reset_classifier(0)
    spec = InputSpec(SIDE, (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0, "center")
    backbone = features.Backbone(module.eval(), spec, 64)
    images = torch.zeros(4, SIDE, SIDE, 3, dtype=torch.uint8)
    features._on_device(backbone, images, GPU, "bfloat16")
    with Waits() as waits:
        found = features._on_device(backbone, images, GPU, "bfloat16")
    assert found.device == GPU
    assert waits.seen == ["aten.to.dtype_layout"]  # from pinned memory


@pytest.mark.parametrize(
    "wait",
    [
        lambda: torch.zeros(3, device=GPU).sum().item(),
        lambda: torch.zeros(3, device=GPU).cpu(),
        lambda: torch.inference_mode()(torch.zeros(3, device=GPU).cpu)(),
        lambda: torch.zeros(3, device=GPU).new_tensor(3),
        lambda: torch.tensor([1.0], device=GPU),
        lambda: torch.arange(3).to(GPU),
        lambda: torch.zeros(3, device=GPU)[torch.zeros(3, dtype=torch.bool, device=GPU)],
        lambda: torch.zeros(3, device=GPU).nonzero(),
    ],
)
def test_what_waits_is_seen(wait: Callable[[], object]) -> None:
    waits = Waits()
    try:
        with waits:
            wait()
    except (DataDependentOutputException, DynamicOutputShapeException):
        pass
    assert waits.seen
