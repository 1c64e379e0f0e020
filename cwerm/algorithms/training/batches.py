"""What a training goes through: batches of images or features with labels and weights, from any source."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped, UInt8
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation.images import augmented_images
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.targets import Beliefs, Mixed, on_device

__all__ = [
    "Batch",
    "Batches",
    "FeatureBatches",
    "Normaliser",
    "PixelBatches",
    "Standardiser",
    "StoredBatches",
]


AT_ONCE = 4096  # vectors that are measured at a time

# a batch's inputs [b, ...] from the rows of its samples, int64 [b], and its place among the rank's turns
MakeInputs = Callable[[Tensor, slice], Tensor]


class Batch(NamedTuple):
    """This rank's part of a batch: images [part, channels, h, w] or features [part, d] as the model takes
    them, labels, weights.

    `size` is the number of samples over all ranks; `beliefs`, where there are any, are what is learned
    instead of the labels; `mixed`, what of other samples is in the inputs.
    """

    inputs: Float[Tensor, "part ..."]
    labels: Int[Tensor, " part"]
    weights: Float[Tensor, " part"]
    size: int
    beliefs: Beliefs | None = None
    mixed: Mixed | None = None


@runtime_checkable
class Batches(Protocol):
    """The batches of an epoch, for one rank."""

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch from that number on, the same whenever they are asked for."""


@dataclass(frozen=True)
class Normaliser:
    """uint8 pixels to floats of mean 0 and deviation 1 a channel, by the training images' figures."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pixels: UInt8[np.ndarray, "n channels height width"]) -> Normaliser:
        """Measure pixels; exact, from counts of the 256 values."""
        channels = range(pixels.shape[1])
        return cls.of_counts(
            np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in channels])
        )

    @classmethod
    def of_counts(cls, counts: Int[np.ndarray, "channels 256"]) -> Normaliser:
        """From how often each value comes in each channel."""
        values = np.arange(256) / 255
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        std = np.sqrt(shares @ values**2 - mean**2)
        # a constant channel has no deviation to divide by
        return cls(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))

    def __call__(
        self, pixels: UInt8[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b channels height width"]:
        """Floats, in channels-last memory."""
        scale, shift = _scale_and_shift(self.mean, self.std, pixels.device)
        images = pixels.float() * scale - shift
        return images.contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=4)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What pixels are multiplied by and what is then subtracted, kept on the device."""
    with torch.inference_mode(False):
        of_means, of_stds = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
        scale, shift = 1 / (255 * of_stds), of_means / of_stds
        return scale[:, None, None].to(device), shift[:, None, None].to(device)


@dataclass(frozen=True)
class Standardiser:
    """Feature vectors to floats of mean 0 and deviation 1 a column, by the training samples' figures."""

    mean: Float32[Tensor, " d"]
    std: Float32[Tensor, " d"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Standardiser:
        """Measure features, in their order and in double precision."""
        total = np.zeros((2, features.shape[1]))
        for start in range(0, len(features), AT_ONCE):
            block = features[start : start + AT_ONCE].astype(np.float64)
            total += block.sum(axis=0), (block**2).sum(axis=0)
        mean, square = total / len(features)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        # a constant column has no deviation to divide by
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1), std, 1.0)
        return cls(*(torch.from_numpy(a.astype(np.float32)) for a in (mean, std)))

    def to(self, device: torch.device) -> Standardiser:
        """The same on a device."""
        return Standardiser(self.mean.to(device), self.std.to(device))

    def __call__(self, features: Float[Tensor, "b d"]) -> Float32[Tensor, "b d"]:
        """Floats of 32 bits."""
        return (features.float() - self.mean) / self.std


class StoredBatches(ABC):
    """Batches of samples that are held in memory, on the ranks' device.

    Their order depends on the recipe's seed and the epoch, not on the number of ranks. An epoch has `turns`
    samples, each equally often, give or take one; as many as there are samples where not given. What an epoch
    draws goes to the device once, so that no step waits for a copy.
    """

    def __init__(
        self,
        samples: Shaped[Tensor, "n ..."],
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        normalise: Callable[[Tensor], Tensor],
        recipe: Recipe,
        ranks: Ranks,
        turns: int | None = None,
        beliefs: Beliefs | None = None,
    ) -> None:
        self.samples, self.labels, self.weights = samples, labels, weights
        self.normalise = normalise
        self.beliefs = None if beliefs is None else on_device(beliefs, labels.device)
        self.recipe, self.ranks = recipe, ranks
        self.turns = len(labels) if turns is None else turns
        self.sizes = erm.batch_sizes(self.turns, recipe.batch_size)

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return len(self.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch, from the one of that number."""
        recipe, ranks, device = self.recipe, self.ranks, self.labels.device
        order = erm.epoch_batches(
            self.turns, recipe.batch_size, recipe.seed, epoch, ranks.world_size, ranks.rank
        )
        sample_of = erm.samples_of_turns(len(self.labels), self.turns, recipe.seed, epoch)
        own_turns = np.concatenate(order)
        own_rows = torch.from_numpy(sample_of[own_turns]).to(device)
        inputs = self.inputs_in(epoch, own_turns)
        ends = np.cumsum([len(turns) for turns in order]).tolist()
        for turns, size, end in [*zip(order, self.sizes, ends, strict=True)][start:]:
            here = slice(end - len(turns), end)
            rows = own_rows[here]
            beliefs = self.beliefs and Beliefs(*(values[rows] for values in self.beliefs))
            asked = self.labels[rows], self.weights[rows], int(size), beliefs
            yield Batch(inputs(rows, here), *asked)

    @abstractmethod
    def inputs_in(self, epoch: int, turns: Int[np.ndarray, " part"]) -> MakeInputs:
        """What makes the model's input of some samples, by their rows and their place in `turns`.

        These are the turns of this epoch that the rank trains on.
        """


class PixelBatches(StoredBatches):
    """Images uint8 [n, channels, height, width], cropped, mirrored and changed as the recipe says.

    They are the same on any number of ranks.
    """

    def inputs_in(self, epoch: int, turns: Int[np.ndarray, " part"]) -> MakeInputs:
        """Augmented images."""
        ranks, (height, width) = self.ranks, self.samples.shape[2:]
        parts = [erm.batch_parts(size, ranks.world_size)[ranks.rank] for size in self.sizes]
        asked = turns, self.turns, parts, (height, width), self.samples.device
        augmented = augmented_images(self.recipe, epoch, *asked)
        return lambda rows, here: self.normalise(augmented(self.samples[rows], here))


class FeatureBatches(StoredBatches):
    """Feature vectors [n, d] as they are stored, standardised as they are used."""

    def inputs_in(self, epoch: int, turns: Int[np.ndarray, " part"]) -> MakeInputs:
        """The vectors, the same in each epoch."""
        del epoch, turns
        return lambda rows, _: self.normalise(self.samples[rows])
