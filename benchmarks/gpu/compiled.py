"""Whether it pays to compile: our steps beside the same compiled by torch, or recorded as CUDA graphs.

No job compiles yet. `ours` is the compiled step here and `bare` ours as it is, so that above 1 it pays; what
the preparation takes is a row of its own. On a CPU there are no CUDA graphs.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from measure import Row, seconds_a_step, settle, waits_a_step

import cwerm.algorithms.networks.models  # noqa: F401  registers the networks for small images
from cwerm.algorithms.gradients.meta_step import meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.weight_net import WeightNet
from cwerm.algorithms.training.batches import Normaliser, PixelBatches
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Precision, Recipe

CLASSES, META_BATCH, WIDTH = 10, 100, 768
# network, side, images, batch, steps
SIZES = [
    ("resnet20", 32, 12_800, 128, 40),
    ("preactresnet18", 32, 12_800, 128, 40),
    ("resnet50", 224, 2_048, 256, 10),
]
ON_CPU = [("small_cnn", 28, 640, 64, 8), ("resnet20", 32, 640, 64, 8)]
SMALL = [("small_cnn", 28, 64, 16, 2)]
Forward = Callable[[torch.Tensor], torch.Tensor]


def rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Images a second of training, and milliseconds of a meta step."""
    on_gpu = device.type == "cuda"
    precision: Precision = "bfloat16" if on_gpu else "float32"
    sizes = SIZES if on_gpu else ON_CPU
    for name, side, images, batch, steps in SMALL if small else sizes:
        asked = name, side, images, batch, precision, device
        rounds = 1 if small else 3
        plain = seconds_a_step(_step(*asked, lambda model, _: model), steps, rounds)
        for kind, forward in _ways(device, precision).items():
            started = time.perf_counter()
            step = _step(*asked, forward)
            step()
            settle()
            prepared = time.perf_counter() - started
            taken, waits = seconds_a_step(step, steps, rounds), waits_a_step(step, steps)
            title = f"{kind}, {name}, {side} px, batch {batch}, {precision}"
            yield Row(title, batch / taken, batch / plain, "images/s", waits)
            yield Row(f"{kind}, {name}: preparation beside a step", prepared, plain, "s", None)
    if on_gpu:
        yield from _recorded_meta_steps(device, 2 if small else 30)


def _ways(
    device: torch.device, precision: str
) -> dict[str, Callable[[torch.nn.Module, torch.Tensor], Forward]]:
    def recorded(model: torch.nn.Module, inputs: torch.Tensor) -> Forward:
        low = precision == "bfloat16"
        with torch.autocast("cuda", torch.bfloat16, enabled=low, cache_enabled=False):
            made: Any = torch.cuda.make_graphed_callables(model, (inputs.clone(),))
        return made

    ways = {"compiled": lambda model, _: torch.compile(model, dynamic=False)}
    return {**ways, "recorded": recorded} if device.type == "cuda" else ways


def _step(
    name: str,
    side: int,
    images: int,
    batch: int,
    precision: Precision,
    device: torch.device,
    forward: Callable[[torch.nn.Module, torch.Tensor], Forward],
) -> Callable[[], object]:
    """A step of our training whose forward and backward are those of `forward`."""
    recipe = Recipe(epochs=1000, batch_size=batch, crop_padding=4, flip=True, precision=precision)
    pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(0, CLASSES, (images,), device=device)
    normalise, ranks = Normaliser((0.5,) * 3, (0.25,) * 3), Ranks(device=device)
    weights = torch.ones(images, device=device)
    batches = PixelBatches(pixels, labels, weights, normalise, recipe, ranks)
    torch.manual_seed(0)
    training: Any = Training(timm.create_model(name, num_classes=CLASSES), batches, recipe, ranks)
    training.model.train()
    stream = itertools.chain.from_iterable(map(batches.epoch, itertools.count()))
    training._parallel = forward(training.model, next(stream).inputs)
    sums = torch.zeros(2, dtype=torch.float64, device=device)

    return lambda: training.step(0, 0.1, next(stream), sums)


def _recorded_meta_steps(device: torch.device, steps: int) -> Iterator[Row]:
    """A whole meta step as one CUDA graph, which has the learning rate in it."""
    images = torch.randn(2 * META_BATCH, 3, 32, 32, device=device)
    vectors = torch.randn(2 * META_BATCH, WIDTH, device=device)
    labels = torch.randint(0, CLASSES, (2 * META_BATCH,), device=device)
    network = timm.create_model("resnet32", num_classes=CLASSES).to(device)
    contestants = {
        "resnet32 on images": (network, images),
        "head on features": (feature_head(vectors, CLASSES).to(device), vectors),
    }
    for name, (model, inputs) in contestants.items():
        net = WeightNet().to(device)
        sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
        adam = torch.optim.Adam(net.parameters(), 1e-3, capturable=True)
        batch = inputs[:META_BATCH], labels[:META_BATCH]
        meta = inputs[META_BATCH:], labels[META_BATCH:]
        options = StepOptions(checked=True)
        step = functools.partial(
            meta_step, model, net, batch, meta, sgd, adam, 0.01, options=options
        )
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        started = time.perf_counter()
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        plain = seconds_a_step(step, steps)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        settle()
        prepared = time.perf_counter() - started
        taken, waits = seconds_a_step(graph.replay, steps), waits_a_step(graph.replay, steps)
        yield Row(f"recorded meta step, {name}", 1 / taken, 1 / plain, "steps/s", waits)
        yield Row(f"recorded meta step, {name}: preparation", prepared, plain, "s", None)
