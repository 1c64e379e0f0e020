"""Steps of the training loop, with its augmentation, beside the bare model's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from measure import Row, seconds_a_step, waits_a_step
from torch.nn import functional

import cwerm.algorithms.networks.models  # noqa: F401  registers the networks for small images
from cwerm.algorithms.networks.timm_models import channels_last
from cwerm.algorithms.torch_state import autocast
from cwerm.algorithms.training.batches import Batch, Normaliser, PixelBatches
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Precision, Recipe

CLASSES = 10
# network, side, images, batch, steps
SIZES = [("resnet20", 32, 50_000, 128, 40), ("preactresnet18", 32, 50_000, 128, 40)]
SIZES += [("resnet50", 224, 4_096, 256, 10)]
SMALL = [("resnet20", 32, 64, 16, 2)]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Images a second, ours and bare."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # as the train stage sets it
        torch.backends.cudnn.benchmark = True
    for (name, side, images, batch, steps), precision in itertools.product(
        SMALL if small else SIZES, PRECISIONS
    ):
        ours = _ours(name, side, images, batch, precision, device)
        taken = seconds_a_step(ours, steps, rounds=1 if small else 5)
        waits = waits_a_step(ours, steps)
        bare = seconds_a_step(_bare(name, side, batch, precision, device), steps)
        title = f"train {name}, {side} px, batch {batch}, {precision}"
        yield Row(title, batch / taken, batch / bare, "images/s", waits)


def _ours(
    name: str, side: int, images: int, batch: int, precision: Precision, device: torch.device
) -> Callable[[], object]:
    recipe = Recipe(epochs=1000, batch_size=batch, crop_padding=4, flip=True, precision=precision)
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (images,), device=device)
    normalise, ranks = Normaliser((0.5,) * 3, (0.25,) * 3), Ranks(device=device)
    weights = torch.ones(images, device=device)
    batches = PixelBatches(pixels, labels, weights, normalise, recipe, ranks)
    training = Training(_network(name), batches, recipe, ranks)
    training.model.train()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # begun anew, as epochs are, whenever one ends
    stream: Iterator[Batch] = itertools.chain.from_iterable(map(batches.epoch, itertools.count()))
    return lambda: training.step(0, 0.1, next(stream), sums)


def _bare(
    name: str, side: int, batch: int, precision: str, device: torch.device
) -> Callable[[], object]:
    """Forward, loss, backward and SGD on one batch that lies on the device as floats."""
    model = channels_last(_network(name).to(device)).train()
    fused = device.type == "cuda"
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=fused
    )
    inputs = torch.randn(batch, 3, side, side, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device=device)

    def step() -> None:
        with autocast(device, precision):
            logits = model(inputs).float()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def _network(name: str) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES)
