"""The exponential moving average of a model in training, which often judges better than the model itself."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cwerm.algorithms.training.ranks import Ranks

__all__ = ["MovingAverage", "decay_at"]


def decay_at(step: int, decay: float) -> float:
    """The decay of a step, from 0: min(decay, (1 + step) / (10 + step)).

    The first steps count less, so that the weights that a model begins with are soon forgotten, also in a
    short training.
    """
    return min(decay, (1 + step) / (10 + step))


class MovingAverage:
    """A copy of a model whose parameters and floating buffers follow it slowly."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._own, self._followed = _floating(self.model), _floating(model)

    def update(self, step: int) -> None:
        """After this step of all; nothing waits for the device."""
        average = get_ema_multi_avg_fn(decay_at(step, self.decay))
        average(
            self._own, self._followed, torch.empty(0)
        )  # the number of averaged models is not read

    def settle(self, model: nn.Module, ranks: Ranks) -> None:
        """At the end of an epoch: counters are the model's, statistics the same on all ranks."""
        counted = dict(model.named_buffers())
        for name, buffer in self.model.named_buffers():
            if not buffer.is_floating_point():
                buffer.copy_(counted[name])
        ranks.average_buffers(self.model)


def _floating(model: nn.Module) -> list[Tensor]:
    values = [*model.parameters(), *model.buffers()]
    return [value.detach() for value in values if value.is_floating_point()]
