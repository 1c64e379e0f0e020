"""How weights are learned: what `MetaWeightNet` and `LearningToReweight` are constructed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cwerm.algorithms.gradients.step_options import StepOptions

__all__ = ["Augment", "Settings", "usual_epochs"]

Augment = Callable[[Tensor, torch.Generator], Tensor]

LEAST_STEPS, LEAST_EPOCHS = 1500, 10


@dataclass(frozen=True)
class Settings:
    """Their arguments, which they explain; without `epochs` there are `usual_epochs`."""

    epochs: int | None
    batch_size: int
    meta_batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]
    average_last: int
    seed: int
    device: torch.device
    augment: Augment | None
    options: StepOptions
    num_classes: int | None = None
    weight_lr: float = 1e-3
    hidden: int = 100
    meta_every: int = 1

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}: give at least 1")
        for name in (
            "batch_size",
            "meta_batch_size",
            "average_last",
            "hidden",
            "meta_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")


def usual_epochs(samples: int, batch_size: int) -> int:
    """As many as make 1,500 steps, at least 10: with fewer, V has not learned which losses are too large."""
    return max(LEAST_EPOCHS, -(-LEAST_STEPS // -(-samples // batch_size)))
