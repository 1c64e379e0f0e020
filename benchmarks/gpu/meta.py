"""Steps of Meta-Weight-Net beside plain steps of the same classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from measure import Row, seconds_a_step, waits_a_step
from torch.nn import functional

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet32
from cwerm.algorithms.gradients.meta_step import meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.weight_net import WeightNet

CLASSES, BATCH, WIDTH = 10, 100, 768


def rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Milliseconds a step."""
    torch.manual_seed(0)
    images = torch.randn(2 * BATCH, 3, 32, 32, device=device)
    vectors = torch.randn(2 * BATCH, WIDTH, device=device)
    labels = torch.randint(0, CLASSES, (2 * BATCH,), device=device)
    network = timm.create_model("resnet20" if small else "resnet32", num_classes=CLASSES)
    contestants = {
        "meta step, resnet32 on images": (network.to(device), images),
        "meta step, head on features": (feature_head(vectors, CLASSES).to(device), vectors),
    }
    steps, rounds = (1, 1) if small else (30, 5)
    for name, (model, inputs) in contestants.items():
        ours, bare = _ours(model, inputs, labels), _bare(model, inputs, labels)
        taken = 1000 * seconds_a_step(ours, steps, rounds)
        waits = waits_a_step(ours, steps)
        plain = 1000 * seconds_a_step(bare, steps, rounds)
        yield Row(f"{name}, batch {BATCH}", taken, plain, "ms/step", waits)


def _ours(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    weight_net = WeightNet().to(inputs.device)
    sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)
    adam = torch.optim.Adam(weight_net.parameters(), 1e-3)
    batch, meta_batch = (inputs[:BATCH], labels[:BATCH]), (inputs[BATCH:], labels[BATCH:])
    # as the loop takes all steps but the first
    options = StepOptions(checked=True)
    return lambda: meta_step(model, weight_net, batch, meta_batch, sgd, adam, 0.01, options=options)


def _bare(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> None:
        sgd.zero_grad(set_to_none=True)
        functional.cross_entropy(model(inputs[:BATCH]), labels[:BATCH]).backward()
        sgd.step()

    return step
