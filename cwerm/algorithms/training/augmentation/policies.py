"""Policies of augmentation: which operations a sample goes through, and how strongly, each by itself.

Sources: Müller and Hutter, "TrivialAugment" (ICCV 2021), its wide space; Cubuk et al., "RandAugment" (2020),
two operations of magnitude 9 of 30. Spaces and figures are torchvision's, which draws once for a whole batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation.operations import OPERATIONS
from cwerm.algorithms.training.recipe import Augment

__all__ = ["Grouped", "PolicyDraws", "apply", "draw_policy", "grouped"]

NAMES = [*OPERATIONS]
STEPS = 30  # of magnitude, from none to all
RAND_OPERATIONS, RAND_MAGNITUDE = 2, 9
# strengths at magnitude 0 and 30, the sign drawn where it is True; what is not here has none
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDED = ("Brightness", "Color", "Contrast", "Sharpness")


class PolicyDraws(NamedTuple):
    """What samples go through, one operation after the other: its place in `OPERATIONS`, and its strength."""

    operations: Int[np.ndarray, "n rounds"]
    strengths: Float[np.ndarray, "n rounds"]


def draw_policy(
    policy: Augment, num_samples: int, seed: int, epoch: int, height: int, width: int
) -> PolicyDraws:
    """Those of an epoch's samples, from the seed and the epoch alone; none for the policy `none`."""
    generator = erm.generator_of(seed, epoch, erm.POLICY)
    rounds = {"none": 0, "trivial": 1, "rand": RAND_OPERATIONS}[policy]
    shape = (num_samples, rounds)
    operations = generator.integers(0, len(NAMES), shape)
    magnitudes = generator.integers(0, STEPS, shape, endpoint=True)
    if policy == "rand":
        magnitudes = np.full(shape, RAND_MAGNITUDE)
    strengths, signed = (values[operations] for values in _space(policy, height, width))
    drawn = generator.random(shape) < 0.5
    strengths = strengths[np.arange(num_samples)[:, None], np.arange(rounds), magnitudes]
    signs = np.where(signed & drawn, -1, 1)
    return PolicyDraws(operations, (strengths * signs).astype(np.float32))


def _space(
    policy: Augment, height: int, width: int
) -> tuple[Float[np.ndarray, "operations 31"], np.ndarray]:
    """The strength of each operation at each magnitude, and whether its sign is drawn."""
    wide = policy == "trivial"
    largest = {
        **dict.fromkeys(("ShearX", "ShearY"), 0.99 if wide else 0.3),
        "TranslateX": 32.0 if wide else 150 / 331 * width,
        "TranslateY": 32.0 if wide else 150 / 331 * height,
        "Rotate": 135.0 if wide else 30.0,
        **dict.fromkeys(BLENDED, 0.99 if wide else 0.9),
    }
    share = np.arange(STEPS + 1) / STEPS
    rows = {name: share * value for name, value in largest.items()}
    rows["Posterize"] = np.rint(8 - share * (6 if wide else 4))
    rows["Solarize"] = 1 - share
    idle = np.zeros(STEPS + 1)
    signed = np.array([name in (*SIGNED, *BLENDED) for name in NAMES])
    return np.stack([rows.get(name, idle) for name in NAMES]), signed


class Grouped(NamedTuple):
    """One round of a batch, its samples ordered by operation."""

    order: Int[Tensor, " n"]
    back: Int[Tensor, " n"]
    strengths: Float[Tensor, " n"]
    """In that order."""
    counts: list[tuple[str, int]]
    """The operations that are there, and how many samples go through each."""


def grouped(draws: PolicyDraws, parts: list[int], device: torch.device) -> list[list[Grouped]]:
    """For each batch its rounds, of draws in the order of the samples that a rank trains on.

    Everything goes to the device once. `parts` are the sizes of the batches.
    """
    rounds = draws.operations.shape[1]
    batch_of = np.repeat(np.arange(len(parts)), parts)
    starts = np.cumsum([0, *parts])
    made: list[list[Grouped]] = [[] for _ in parts]
    for number in range(rounds):
        operations = draws.operations[:, number]
        order = np.lexsort((operations, batch_of))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        within = starts[batch_of]
        tensors = [order - within, back - within, draws.strengths[:, number][order]]
        orders, backs, strengths = (torch.from_numpy(values).to(device) for values in tensors)
        for batch, (first, last) in enumerate(pairwise(starts)):
            here = slice(int(first), int(last))
            counted = np.bincount(operations[here], minlength=len(NAMES)).tolist()
            counts = [(name, n) for name, n in zip(NAMES, counted, strict=True) if n]
            made[batch].append(Grouped(orders[here], backs[here], strengths[here], counts))
    return made


def apply(
    images: UInt8[Tensor, "n 3 height width"], rounds: list[Grouped]
) -> UInt8[Tensor, "n 3 height width"]:
    """The images of a batch after these rounds."""
    for order, back, strengths, counts in rounds:
        numbers = [number for _, number in counts]
        some = zip(counts, images[order].split(numbers), strengths.split(numbers), strict=True)
        images = torch.cat([OPERATIONS[name](part, each) for (name, _), part, each in some])[back]
    return images
