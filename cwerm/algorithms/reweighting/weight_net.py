"""The weight net V of Meta-Weight-Net (Shu et al., 2019): a small network from loss to weight."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["WeightNet", "net_inputs"]


class WeightNet(nn.Module):
    """V: maps a sample's loss to its weight in (0, 1) by one hidden ReLU layer and a sigmoid.

    `inputs` is the number of values a sample; the first is its loss.
    """

    def __init__(self, inputs: int = 1, hidden: int = 100) -> None:
        super().__init__()
        self.inputs = inputs
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, losses: Float[Tensor, "batch inputs"]) -> Float[Tensor, " batch"]:
        """Return one weight a sample."""
        return self.output(self.hidden(losses).relu()).sigmoid().squeeze(1)


def net_inputs(
    losses: Float[Tensor, " batch"], extra: Float[Tensor, "batch columns"] | None
) -> Float[Tensor, "batch inputs"]:
    """The losses as first column, then those of `extra`, without a graph."""
    column = losses.detach()[:, None]
    return column if extra is None else torch.cat([column, extra.to(column.dtype)], 1)
