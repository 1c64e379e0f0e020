"""How weights are learned: the arguments of `MetaWeightNet` and `LearningToReweight`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cwerm.algorithms.gradients.step_options import StepOptions

__all__ = ["Augment", "Settings", "usual_epochs"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
Device: TypeAlias = Any  # a torch.device, its name, or None for a GPU where there is one

LEAST_STEPS, LEAST_EPOCHS = 1500, 10


@dataclass(kw_only=True, eq=False)
class Settings:
    """What both are constructed with, and explain; without `epochs` there are `usual_epochs`."""

    classifier: InitVar[nn.Module | None] = field(default=None, kw_only=False)
    epochs: int | None = None
    batch_size: int = 100
    meta_batch_size: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.01
    milestones: tuple[float, ...] = (2 / 3, 5 / 6)
    average_last: int = 5
    seed: int = 0
    device: Device = None
    augment: Augment | None = None
    options: StepOptions = field(default_factory=StepOptions)
    num_classes: int | None = None

    def __post_init__(self, classifier: nn.Module | None) -> None:
        self.given_classifier = classifier
        self.device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._check_positive("epochs", "batch_size", "meta_batch_size", "average_last")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give at least 1")


def usual_epochs(samples: int, batch_size: int) -> int:
    """As many as make 1,500 steps, at least 10: with fewer, V has not learned which losses are too large."""
    return max(LEAST_EPOCHS, -(-LEAST_STEPS // -(-samples // batch_size)))
