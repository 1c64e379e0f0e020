"""How a meta step computes: precision, parts, approximations, ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["StepOptions"]


@dataclass(frozen=True)
class StepOptions:
    """How a meta step computes. The defaults are exact and the fastest exact choice.

    - `keep_graph`: keep the activations at theta during the meta pass. Without, memory is that of a
      plain step instead of twice as much, for one more forward.
    - `like_optimizer`: the virtual step has the optimizer's momentum and weight decay.
    - `micro_batches`: batch and meta batch are processed in so many parts, which together make one
      step; exact without BatchNorm. Costs two more forwards, saves memory.
    - `autocast`: run the classifier in this type (`torch.bfloat16`) under torch's autocast.
    - `slopes`: `exact`, or finite differences: `central`, or `forward` with half the work.
    - `last_layer`: only the classifier's last layer moves in the virtual step. Exact for that step,
      an approximation of the full one.
    - `all_reduce_mean`: replaces a flat tensor by its mean over all ranks, in place. Each rank then
      gives its own part of the batch and of the meta batch, of any size, and all take the same step
      as one process would with the whole. BatchNorm's statistics remain those of the rank's part.
    - `world_size`, `rank`: the loops of `MetaWeightNet` and `LearningToReweight` take this rank's
      share of each batch and meta batch. They need `all_reduce_mean` where there are several ranks.
    """

    keep_graph: bool = True
    like_optimizer: bool = False
    micro_batches: int = 1
    autocast: torch.dtype | None = None
    slopes: Literal["exact", "central", "forward"] = "exact"
    last_layer: bool = False
    all_reduce_mean: Callable[[Tensor], object] | None = None
    world_size: int = 1
    rank: int = 0

    def gather(self, values: Tensor) -> Tensor:
        """The values of all ranks, which have one shape: [world size, ...]."""
        if self.all_reduce_mean is None:
            return values[None]
        every = values.new_zeros((self.world_size, *values.shape))
        every[self.rank] = values * self.world_size
        self.all_reduce_mean(every.view(-1))
        return every

    def mean_over_ranks(self, means: Sequence[Tensor], count: int) -> list[Tensor]:
        """Means over this rank's `count` samples to means over the samples of all ranks."""
        if self.all_reduce_mean is None:
            return list(means)
        flat = torch.cat(
            [*(mean.flatten() * count for mean in means), means[0].new_ones(1) * count]
        )
        self.all_reduce_mean(flat)
        values = (flat[:-1] / flat[-1]).split([mean.numel() for mean in means])
        return [value.view(mean.shape) for value, mean in zip(values, means, strict=True)]
