"""How a meta step computes: precision and ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["StepOptions"]


@dataclass(frozen=True)
class StepOptions:
    """How a meta step computes. The defaults are exact.

    - `autocast`: run the classifier in this type (`torch.bfloat16`) under torch's autocast.
    - `all_reduce_mean`: replaces a flat tensor by its mean over all ranks, in place. Each rank then
      gives its own part of the batch and of the meta batch, of any size, and all take the same step
      as one process would with the whole. BatchNorm's statistics remain those of the rank's part.
    - `world_size`, `rank`: the loops of `MetaWeightNet` and `LearningToReweight` take this rank's
      share of each batch and meta batch. They need `all_reduce_mean` where there are several ranks.
    - `checked`: the model and labels like these have been through a step, so that nothing is asked of the
      device to look whether they fit. Their loops set it on a GPU, after the first step.
    """

    autocast: torch.dtype | None = None
    all_reduce_mean: Callable[[Tensor], object] | None = None
    world_size: int = 1
    rank: int = 0
    checked: bool = False

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
