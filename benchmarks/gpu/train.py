"""Steps of the training loop, with its augmentation, beside the bare model's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import timm
import torch
from measure import Row, decoded, photograph, seconds_a_step, waits_a_step
from torch.nn import functional

import cwerm.algorithms.networks.models  # noqa: F401  registers the networks for small images
from cwerm.algorithms.networks.preprocessing import InputSpec, preprocess
from cwerm.algorithms.networks.timm_models import channels_last
from cwerm.algorithms.torch_state import autocast
from cwerm.algorithms.training.batches import Batch, Normaliser, PixelBatches
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Precision, Recipe
from cwerm.algorithms.training.streaming.batches import StreamedBatches

CLASSES, PART = 10, 64
NORMALISE = Normaliser((0.5,) * 3, (0.25,) * 3)
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
        ours = _ours(name, _held(side, images, batch, precision, device))
        taken = seconds_a_step(ours, steps, rounds=1 if small else 5)
        waits = waits_a_step(ours, steps)
        bare = seconds_a_step(_bare(name, side, batch, precision, device), steps)
        title = f"train {name}, {side} px, batch {batch}, {precision}"
        yield Row(title, batch / taken, batch / bare, "images/s", waits)
        if side >= 224 or small:
            batches = _streamed(side, images, batch, precision, device)
            taken = seconds_a_step(_ours(name, batches), steps, rounds=1 if small else 3)
            title += f", streamed from JPEG on {batches.threads} cores"
            yield Row(title, batch / taken, batch / bare, "images/s", None)


def _ours(name: str, batches: PixelBatches | StreamedBatches) -> Callable[[], object]:
    ranks, device = batches.ranks, batches.ranks.device
    training = Training(_network(name), batches, batches.recipe, ranks)
    training.model.train()
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # begun anew, as epochs are, whenever one ends
    stream: Iterator[Batch] = itertools.chain.from_iterable(map(batches.epoch, itertools.count()))
    return lambda: training.step(0, 0.1, next(stream), sums)


def _held(
    side: int, images: int, batch: int, precision: Precision, device: torch.device
) -> PixelBatches:
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (images,), device=device)
    weights = torch.ones(images, device=device)
    recipe, ranks = _recipe(batch, precision), Ranks(device=device)
    return PixelBatches(pixels, labels, weights, NORMALISE, recipe, ranks)


def _streamed(
    side: int, images: int, batch: int, precision: Precision, device: torch.device
) -> StreamedBatches:
    labels = torch.randint(0, CLASSES, (images,), device=device)
    weights = torch.ones(images, device=device)
    recipe, ranks = _recipe(batch, precision), Ranks(device=device)
    asked = labels, weights, NORMALISE, recipe, ranks, images
    threads = len(os.sched_getaffinity(0))
    return StreamedBatches(Jpegs(side, images), *asked, window=32, threads=threads)


def _recipe(batch: int, precision: Precision) -> Recipe:
    return Recipe(epochs=1000, batch_size=batch, crop_padding=4, flip=True, precision=precision)


class Jpegs:
    """The same photograph in all parts, as `cwerm.stages.train.parts` gives images to a stream."""

    def __init__(self, side: int, images: int) -> None:
        self.side, self.sizes = side, np.full(-(-images // PART), PART)
        self.sizes[-1] -= self.sizes.sum() - images
        self.spec = InputSpec(side, (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0, "center")
        self.data = photograph()

    def read(self, part: int, images: np.ndarray) -> Sequence[bytes]:
        """Copies."""
        del part
        return [self.data] * len(images)

    def decode(self, cells: Sequence[bytes]) -> np.ndarray:
        """Pixels, uint8 [n, 3, side, side]."""
        images = [preprocess(decoded(cell), self.spec).transpose(2, 0, 1) for cell in cells]
        return np.stack(images)


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
