"""All that a recipe does to an image before the network sees it, drawn sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation import policies, resized_crop
from cwerm.algorithms.training.recipe import Recipe

__all__ = ["Augmented", "augmented_images"]

# images uint8 [n, channels, height, width] of a batch, and its place among the turns, to augmented ones
Augmented = Callable[[Tensor, slice], Tensor]


def augmented_images(
    recipe: Recipe,
    epoch: int,
    turns: Int[np.ndarray, " part"],
    num_turns: int,
    parts: list[int],
    size: tuple[int, int],
    device: torch.device,
) -> Augmented:
    """What changes the images of some of an epoch's `num_turns` turns, batch by batch.

    What a turn's image goes through depends on the seed, the epoch and the turn alone: it is cropped, then
    mirrored, then goes through the policy. What is drawn goes to the device here, so that no batch waits.

    Args:
        turns: those that this rank trains on, in their order.
        parts: how many of them are in each batch.
        size: height and width of the images.
    """
    resized = recipe.crop == "resized"
    padding = 0 if resized else recipe.crop_padding
    drawn = erm.augmentation_draws(num_turns, recipe.seed, epoch, padding)
    offsets, flips = (torch.from_numpy(values[turns]).to(device) for values in drawn)
    flips &= recipe.flip
    windows = torch.empty(0)
    if resized:
        every = resized_crop.crop_windows(num_turns, recipe.seed, epoch, *size)
        windows = torch.from_numpy(every[turns]).to(device)
    rounds: dict[int, list[policies.Grouped]] = {}
    if recipe.augment != "none":
        draws = policies.draw_policy(recipe.augment, num_turns, recipe.seed, epoch, *size)
        own = policies.PolicyDraws(*(values[turns] for values in draws))
        starts = np.cumsum([0, *parts]).tolist()
        of_batches = policies.grouped(own, parts, device)
        rounds = dict(zip(starts[:-1], of_batches, strict=True))

    def augmented(images: Tensor, here: slice) -> Tensor:
        if resized:
            images = resized_crop.resized_crop(images, windows[here])
        images = erm.crop_and_flip(images, offsets[here], flips[here], padding)
        return policies.apply(images, rounds.get(here.start, []))

    return augmented
