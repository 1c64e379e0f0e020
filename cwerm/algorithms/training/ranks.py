"""The processes that train one model together, by `torch.distributed`, or one alone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Ranks"]

Part = TypeVar("Part")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `world_size`, on its device; the process group is there already if there are several.

    On its node it is `local_rank` of `local_size`.
    """

    world_size: int = 1
    rank: int = 0
    device: torch.device = CPU
    local_rank: int = 0
    local_size: int = 1

    def share_gradients(self, model: nn.Module) -> nn.Module:
        """The model, whose backward passes from now on average gradients over the ranks."""
        if self.world_size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        # Running statistics are averaged once an epoch instead of sent at every step.
        return DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def kept_apart(self, parallel: nn.Module) -> AbstractContextManager[object]:
        """Backward passes inside add to this rank's gradients alone, of what `share_gradients` gave."""
        if isinstance(parallel, DistributedDataParallel):
            return parallel.no_sync()
        return nullcontext()

    def sum(self, values: Tensor) -> None:
        """Sum over the ranks, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)

    def gather(self, part: Part) -> list[Part]:
        """Each rank's part, in their order."""
        if self.world_size == 1:
            return [part]
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, part)
        return parts

    def average_buffers(self, model: nn.Module) -> None:
        """Make running statistics the same on all ranks, each of which saw its own share of the data."""
        for buffer, mean in zip(model.buffers(), self.averaged(model.buffers()), strict=True):
            buffer.copy_(mean)

    def averaged(self, values: Iterable[Tensor]) -> list[Tensor]:
        """The means over the ranks of those that are floats, the others as they are."""
        return [self._mean(value) if value.is_floating_point() else value for value in values]

    def _mean(self, value: Tensor) -> Tensor:
        total = value.detach().clone()
        self.sum(total)
        return total / self.world_size
