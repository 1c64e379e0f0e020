"""Mixup and CutMix: each sample of a batch with some of another one, whose label counts as much.

Sources: Zhang et al., "mixup" (ICLR 2018); Yun et al., "CutMix" (ICCV 2019). With the share s of its own,
a sample costs s * w * loss(y) + (1 - s) * w' * loss(y'), where w' and y' are those of the other one: each
label is learned as much as its own weight says. A sample of weight 0 teaches nothing, but its pixels are
seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.batches import Batch
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.targets import Beliefs, Mixed

__all__ = ["Draw", "draw", "mixed", "partners"]

HALF = 0.5  # how often it is CutMix, where both are asked for


class Draw(NamedTuple):
    """What one batch is mixed by: the share of a sample's own, and for CutMix the window of the other."""

    share: float
    window: tuple[slice, slice] | None = None
    """Rows and columns."""


def draw(recipe: Recipe, epoch: int, step: int, height: int, width: int) -> Draw:
    """That of a batch, from the seed, the epoch and the step alone, for images of this size.

    The share is drawn from a beta distribution. CutMix's window has as much of the area, anywhere, and where
    it leaves the image that part is cut off, and the share is that of the pixels that stay.
    """
    generator = erm.generator_of(recipe.seed, epoch, erm.MIXING, step)
    cuts = generator.random() < (HALF if recipe.mixup else 1.0)
    if not (recipe.cutmix and cuts):
        return Draw(float(generator.beta(recipe.mixup, recipe.mixup)))
    side = math.sqrt(1 - generator.beta(recipe.cutmix, recipe.cutmix))
    sides, place = np.array([height, width]), generator.random(2)
    first = np.maximum(0, sides * (place - side / 2)).astype(int)
    last = np.minimum(sides, sides * (place + side / 2)).astype(int)
    area = int(np.prod(last - first))
    rows, columns = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return Draw(1 - area / (height * width), (rows, columns))


def partners(part: int, start: int, device: torch.device) -> Int[Tensor, " {part}"]:
    """Of each sample of a rank's part the other one in its pair, by its place in the part.

    A batch is a row of pairs. The part begins at place `start` of it, and where a border of parts divides a
    pair, each of the two is its own partner, and so unmixed.
    """
    own = torch.arange(part, device=device)
    other = ((own + start) ^ 1) - start
    return torch.where((other >= 0) & (other < part), other, own)


def mixed(batch: Batch, recipe: Recipe, ranks: Ranks, epoch: int, step: int) -> Batch:
    """This rank's part of a batch as the recipe mixes it; nothing waits for the device.

    On any number of ranks the draws are the same, and so are the pairs that no border divides.
    """
    if not (recipe.mixup or recipe.cutmix):
        return batch
    inputs = batch.inputs
    height, width = inputs.shape[2:] if inputs.ndim == 4 else (1, 1)
    share, window = draw(recipe, epoch, step, height, width)
    start = sum(erm.batch_parts(batch.size, ranks.world_size)[: ranks.rank])
    other = partners(len(inputs), start, inputs.device)
    beliefs = batch.beliefs and Beliefs(*(values[other] for values in batch.beliefs))
    if window is None:
        inputs = share * inputs + (1 - share) * inputs[other]
    else:
        rows, columns = window
        seen = inputs[:, :, rows, columns][other]
        inputs = inputs.clone()
        inputs[:, :, rows, columns] = seen
    of_other = Mixed(share, batch.labels[other], batch.weights[other], beliefs)
    return batch._replace(inputs=inputs, mixed=of_other)
