"""An epoch that is not over yet, as it is kept so that a training can go on in its middle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cwerm.algorithms.training.ranks import Ranks

__all__ = ["Begun"]


@dataclass
class Begun:
    """How far this rank has come in an epoch."""

    sums: Float[Tensor, "loss_and_correct"]
    """On its device, so that no step waits for a copy."""
    step: int = 0
    """The next one."""
    seen: int = 0
    """How many samples it has learned from."""
    seconds: float = 0.0
    counters: dict[str, Tensor] = field(default_factory=dict)
    """BatchNorm's counters as the epoch began, by their names in the model's state."""

    @classmethod
    def anew(cls, ranks: Ranks) -> Begun:
        """Before the first step."""
        return cls(torch.zeros(2, device=ranks.device, dtype=torch.float64))

    def totals(self, ranks: Ranks) -> Float[Tensor, "loss_correct_and_seen"]:
        """Over all ranks."""
        totals = torch.cat([self.sums, self.sums.new_tensor([self.seen])])
        ranks.sum(totals)
        return totals

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """What `restored` needs."""
        return {"step": self.step, "totals": self.totals(ranks).cpu(), "seconds": self.seconds}

    @classmethod
    def restored(cls, state: dict[str, Any], ranks: Ranks) -> Begun:
        """One rank takes the sums of all."""
        totals = state["totals"].to(ranks.device) * (ranks.rank == 0)
        return cls(totals[:2].clone(), state["step"], int(totals[2]), state["seconds"])

    @staticmethod
    def check(state: dict[str, Any], steps: int) -> None:
        """Refuse what is not of an epoch with so many steps.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: saying why.
        """
        step, totals, seconds = (state[name] for name in ("step", "totals", "seconds"))
        if not 0 < step < steps:
            raise ValueError("of other steps")
        whole = totals.shape == (3,) and totals.dtype == torch.float64
        if not whole or type(step) is not int or not math.isfinite(seconds):
            raise ValueError("of another kind of epoch")
