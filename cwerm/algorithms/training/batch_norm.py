"""BatchNorm's counters of steps, which no result depends on, kept out of the steps of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["counters_apart"]


@contextmanager
def counters_apart(model: nn.Module, steps: int) -> Iterator[None]:
    """Count these steps at the end, at once: each counter would be a kernel of its own in each step.

    Layers whose running statistics are the mean over all steps (`momentum` None) count for themselves.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.momentum is not None
    ]
    counters = [layer.num_batches_tracked for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, counter in zip(layers, counters, strict=True):
            layer.num_batches_tracked = None if counter is None else counter + steps
