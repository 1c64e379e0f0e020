"""How many steps a training has, and the learning rate of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cwerm.algorithms.training.erm import cosine_lr
from cwerm.algorithms.training.recipe import Recipe

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A straight line up to `lr` over the first `warmup` of all `steps`, then half a cosine to 0."""

    lr: float
    steps_per_epoch: int
    steps: int
    warmup: int = 0

    @classmethod
    def of(cls, recipe: Recipe, steps_per_epoch: int) -> Schedule:
        """That of a recipe.

        Raises:
            ValueError: nothing is left after the warmup.
        """
        steps = recipe.epochs * steps_per_epoch
        if recipe.max_steps is not None:
            steps = min(steps, recipe.max_steps)
        warmup = round(recipe.warmup_epochs * steps_per_epoch)
        if warmup >= steps:
            raise ValueError(f"a warmup of {warmup} steps, and a training of {steps}")
        return cls(recipe.lr, steps_per_epoch, steps, warmup)

    @property
    def epochs(self) -> int:
        """Passes over the data that are begun; the last may end early."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch, from 0."""
        return min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, from 0, of all; the first of a warmup is above 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return cosine_lr(step - self.warmup, self.steps - self.warmup, self.lr)
