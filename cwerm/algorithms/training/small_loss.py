"""Small loss: of each batch only the samples with the smallest losses are learned from.

Networks learn right labels before wrong ones, so that early on wrong ones have the large losses. With a
known share of wrong labels, that share of each batch is left out, rising from none over the first epochs,
while the network knows nothing yet. Source: Han et al., "Co-teaching" (NeurIPS 2018), here with one network
that chooses for itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["RISE", "left_out_share", "small_loss_factors"]

RISE = 10  # epochs until the whole share is left out


def left_out_share(epoch: int, wrong_share: float) -> float:
    """The share of each batch to leave out in this epoch (from 0): wrong_share * min(epoch / 10, 1)."""
    return wrong_share * min(epoch / RISE, 1.0)


def small_loss_factors(
    losses: Float[Tensor, " part"],
    left_out: float,
    batch_size: int,
    start: int = 0,
    sum_over_ranks: Callable[[Tensor], object] | None = None,
) -> Float[Tensor, " part"]:
    """What to multiply the losses of this rank's part of a batch by, without a graph.

    0 for the round(left_out * batch_size) largest losses of the whole batch, but never for all; for the
    others batch_size over their number, so that the mean over the batch is the mean over them. The part
    stands in the batch from `start` on; `sum_over_ranks` sums a tensor over all ranks, in place. Of equal
    losses the first count as smaller.
    """
    whole = losses.new_zeros(batch_size)
    whole[start : start + len(losses)] = losses.detach()
    if sum_over_ranks is not None:
        sum_over_ranks(whole)
    kept = max(1, batch_size - round(left_out * batch_size))
    factors = torch.zeros_like(whole)
    factors[torch.argsort(whole, stable=True)[:kept]] = batch_size / kept
    return factors[start : start + len(losses)]
