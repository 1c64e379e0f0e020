"""BatchNorm's counters of steps, which no result depends on, kept out of the steps of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["counters_apart"]


@contextmanager
def counters_apart(model: nn.Module, steps: int) -> Iterator[dict[str, Tensor]]:
    """Count these steps at the end, at once: each counter would be a kernel of its own in each step.

    Layers whose running statistics are the mean over all steps (`momentum` None) count for themselves. Gives
    the counters as they were, by their names in the model's state.
    """
    layers = {
        f"{name}.num_batches_tracked" if name else "num_batches_tracked": layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.momentum is not None
    }
    counters = {name: layer.num_batches_tracked for name, layer in layers.items()}
    for layer in layers.values():
        layer.num_batches_tracked = None
    try:
        yield {name: counter for name, counter in counters.items() if counter is not None}
    finally:
        for name, layer in layers.items():
            counter = counters[name]
            layer.num_batches_tracked = None if counter is None else counter + steps
