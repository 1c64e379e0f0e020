"""What a training goes through: batches of images with labels and weights, from any source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.targets import Beliefs, on_device

__all__ = ["Batch", "Batches", "Normaliser", "PixelBatches"]


class Batch(NamedTuple):
    """This rank's part of a batch: images [part, channels, h, w] as the model takes them, labels, weights.

    `size` is the number of samples over all ranks; `beliefs`, where there are any, are what is learned
    instead of the labels.
    """

    images: Float[Tensor, "part channels height width"]
    labels: Int[Tensor, " part"]
    weights: Float[Tensor, " part"]
    size: int
    beliefs: Beliefs | None = None


@runtime_checkable
class Batches(Protocol):
    """The batches of an epoch, for one rank."""

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of this epoch, the same whenever they are asked for."""


@dataclass(frozen=True)
class Normaliser:
    """uint8 pixels to floats of mean 0 and deviation 1 a channel, by the training images' figures."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pixels: UInt8[np.ndarray, "n channels height width"]) -> Normaliser:
        """Measure pixels; exact, from counts of the 256 values."""
        values = np.arange(256) / 255
        channels = range(pixels.shape[1])
        counts = np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in channels])
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        std = np.sqrt(shares @ values**2 - mean**2)
        # a constant channel has no deviation to divide by
        return cls(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))

    def __call__(
        self, pixels: UInt8[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b channels height width"]:
        """Floats, in channels-last memory."""
        mean, std = (
            torch.tensor(values, device=pixels.device, dtype=torch.float32)
            for values in (self.mean, self.std)
        )
        scale, shift = 1 / (255 * std), mean / std
        images = pixels.float() * scale[:, None, None] - shift[:, None, None]
        return images.contiguous(memory_format=torch.channels_last)


class PixelBatches:
    """Batches of images that are held in memory, on the ranks' device.

    Order and augmentation depend on the recipe's seed and the epoch, not on the number of ranks. An epoch
    has `turns` samples, each image equally often, give or take one; as many as images where not given.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "n channels height width"],
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        normalise: Normaliser,
        recipe: Recipe,
        ranks: Ranks,
        turns: int | None = None,
        beliefs: Beliefs | None = None,
    ) -> None:
        self.images, self.labels, self.weights = images, labels, weights
        self.beliefs = None if beliefs is None else on_device(beliefs, images.device)
        self.normalise, self.recipe, self.ranks = normalise, recipe, ranks
        self.turns = len(labels) if turns is None else turns
        self.sizes = erm.batch_sizes(self.turns, recipe.batch_size)

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return len(self.sizes)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of this epoch."""
        recipe, ranks, device = self.recipe, self.ranks, self.images.device
        order = erm.epoch_batches(
            self.turns, recipe.batch_size, recipe.seed, epoch, ranks.world_size, ranks.rank
        )
        sample_of = erm.samples_of_turns(len(self.labels), self.turns, recipe.seed, epoch)
        offsets, flips = erm.augmentation_draws(self.turns, recipe.seed, epoch, recipe.crop_padding)
        flips &= recipe.flip
        for turns, size in zip(order, self.sizes, strict=True):
            rows = torch.from_numpy(sample_of[turns]).to(device)
            images = erm.crop_and_flip(
                self.images[rows],
                torch.from_numpy(offsets[turns]).to(device),
                torch.from_numpy(flips[turns]).to(device),
                recipe.crop_padding,
            )
            beliefs = self.beliefs and Beliefs(*(values[rows] for values in self.beliefs))
            asked = self.labels[rows], self.weights[rows], int(size), beliefs
            yield Batch(self.normalise(images), *asked)
