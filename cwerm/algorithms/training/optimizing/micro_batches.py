"""A batch in parts that are learned one after the other, so that fewer activations are held at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.batches import Batch

__all__ = ["micro_batches"]


def micro_batches(batch: Batch, number: int) -> list[Batch]:
    """Near-equal parts of this rank's part of a batch; fewer where it has fewer samples.

    Each keeps the whole batch's `size`, so that their gradients add up to that of the batch. Layers with
    batch statistics see each part by itself.
    """
    if number == 1:
        return [batch]
    samples = len(batch.labels)
    sizes = erm.batch_parts(samples, min(number, samples))
    made, start = [], 0
    for size in sizes:
        made.append(_cut(batch, slice(start, start + size)))
        start += size
    return made


def _cut(value: Any, here: slice) -> Any:
    """The same, with some rows of each tensor in it."""
    if isinstance(value, Tensor):
        return value[here]
    if isinstance(value, tuple):
        return type(value)(*(_cut(part, here) for part in value))
    return value
