"""Batches of images that are read part by part and decoded as they are needed: no more of them is in memory.

What an epoch reads is known from its beginning. Parts are read ahead, and the images of the next batches are
decoded on other threads while the model learns from this one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.augmentation.images import augmented_images
from cwerm.algorithms.training.batches import Batch
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.streaming.order import stream_batches
from cwerm.algorithms.training.targets import Beliefs, on_device

__all__ = ["Images", "StreamedBatches"]

PARTS_AHEAD = 2  # that are read before they are needed
BATCHES_AHEAD = 2  # that are decoded beside the one in use
READERS = 2

Cell = Any  # an image as it is stored


@runtime_checkable
class Images(Protocol):
    """The images that are trained on, in parts; they are numbered from 0 through all of these."""

    sizes: Int[np.ndarray, " parts"]
    """Of how many each part has."""
    side: int
    """Of the decoded images, in pixels."""

    def read(self, part: int, images: Int[np.ndarray, " some"]) -> Sequence[Cell]:
        """Some of a part's images as they are stored."""

    def decode(self, cells: Sequence[Cell]) -> UInt8[np.ndarray, "some 3 side side"]:
        """Their pixels."""


class StreamedBatches:
    """Batches of images that are not held; in the order of `stream_batches`, augmented as the recipe says.

    They are the same on any number of ranks. `turns` is as in `StoredBatches`, `window` as in
    `stream_batches`, and `threads` is how many decode.
    """

    def __init__(
        self,
        images: Images,
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        normalise: Callable[[Tensor], Tensor],
        recipe: Recipe,
        ranks: Ranks,
        turns: int,
        beliefs: Beliefs | None = None,
        *,
        window: int,
        threads: int = 1,
    ) -> None:
        self.images, self.labels, self.weights = images, labels, weights
        self.normalise = normalise
        self.beliefs = None if beliefs is None else on_device(beliefs, labels.device)
        self.recipe, self.ranks, self.turns = recipe, ranks, turns
        self.window, self.threads = window, threads
        self.sizes = erm.batch_sizes(turns, recipe.batch_size)

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return len(self.sizes)

    def order(self, epoch: int) -> list[Int[np.ndarray, " _"]]:
        """The samples of each of this rank's batches."""
        recipe, ranks = self.recipe, self.ranks
        asked = recipe.batch_size, self.window, recipe.seed, epoch, ranks.world_size, ranks.rank
        return stream_batches(self.images.sizes, self.turns, *asked)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of this epoch, from the one of that number."""
        order = self.order(epoch)
        augment = self._augmentation(epoch)
        first = sum(map(len, order[:start]))
        with Pixels(self.images, order[start:], self.threads) as decoded:
            for step, pixels in enumerate(decoded, start):
                here = slice(first, first + len(pixels))
                first = here.stop
                rows = self._to_device(torch.from_numpy(order[step]))
                beliefs = self.beliefs and Beliefs(*(values[rows] for values in self.beliefs))
                asked = self.labels[rows], self.weights[rows], self.sizes[step], beliefs
                inputs = augment(self._to_device(torch.from_numpy(pixels)), here)
                yield Batch(self.normalise(inputs), *asked)

    def _augmentation(self, epoch: int) -> Callable[[Tensor, slice], Tensor]:
        """Changes images at random, by their place among those that this rank sees in the epoch."""
        ranks, sizes = self.ranks, np.array(self.sizes)
        ends = np.cumsum(sizes)
        first = ends - sizes + sizes * ranks.rank // ranks.world_size
        last = ends - sizes + sizes * (ranks.rank + 1) // ranks.world_size
        turns = [np.arange(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
        side = self.images.side
        asked = [len(own) for own in turns], (side, side), self.labels.device
        return augmented_images(self.recipe, epoch, np.concatenate(turns), self.turns, *asked)

    def _to_device(self, values: Tensor) -> Tensor:
        device = self.labels.device
        if device.type != "cuda":
            return values
        return values.pin_memory().to(device, non_blocking=True)


class Pixels:
    """The decoded images of some batches, one after the other; a part is read once for all that want it.

    Of a part those images are held, as they are stored, that are still to come.
    """

    def __init__(
        self, images: Images, order: list[Int[np.ndarray, " _"]], threads: int = 1
    ) -> None:
        self.images, self.threads = images, threads
        self._samples = np.concatenate(order) if order else np.empty(0, np.int64)
        self._ends = np.cumsum([len(batch) for batch in order]).tolist()
        self._cells: dict[int, Cell] = {}  # by place in the order
        self._loads = self._plan()
        self._readers = ThreadPoolExecutor(READERS, "read")
        self._decoders = ThreadPoolExecutor(threads, "decode")

    def __enter__(self) -> Iterator[UInt8[np.ndarray, "some 3 side side"]]:
        return self._batches()

    def __exit__(self, *_: object) -> None:
        for pool in (self._readers, self._decoders):
            pool.shutdown(wait=True, cancel_futures=True)

    def _plan(self) -> deque[tuple[int, Int[np.ndarray, " _"]]]:
        """Each part with the places of its images in the order, by when it is needed first.

        A part whose images come several times is read anew for each time.
        """
        part_of = np.repeat(np.arange(len(self.images.sizes)), self.images.sizes)[self._samples]
        loads = part_of + len(self.images.sizes) * _repetition(self._samples)
        by_load = np.argsort(loads, kind="stable")
        _, starts = np.unique(loads[by_load], return_index=True)
        places = np.split(by_load, starts[1:]) if len(by_load) else []
        return deque(
            (int(part_of[own[0]]), own) for own in sorted(places, key=lambda own: int(own[0]))
        )

    def _batches(self) -> Iterator[UInt8[np.ndarray, "some 3 side side"]]:
        reading: deque[tuple[Int[np.ndarray, " _"], Future[Sequence[Cell]]]] = deque()
        decoding: deque[list[Future[UInt8[np.ndarray, "some 3 side side"]]]] = deque()
        start = 0
        for end in self._ends:
            while True:
                while self._loads and len(reading) < PARTS_AHEAD:
                    part, places = self._loads.popleft()
                    wanted = self._samples[places]
                    reading.append((places, self._readers.submit(self.images.read, part, wanted)))
                if not reading or reading[0][0][0] >= end:
                    break
                places, cells = reading.popleft()
                self._cells.update(zip(places.tolist(), cells.result(), strict=True))
            decoding.append(self._decode([self._cells.pop(place) for place in range(start, end)]))
            start = end
            if len(decoding) > BATCHES_AHEAD:
                yield _joined(decoding.popleft())
        while decoding:
            yield _joined(decoding.popleft())

    def _decode(self, cells: list[Cell]) -> list[Future[UInt8[np.ndarray, "some 3 side side"]]]:
        """A batch's images, in as many pieces as there are threads."""
        ends = [len(cells) * i // self.threads for i in range(self.threads + 1)]
        pieces = [cells[a:b] for a, b in itertools.pairwise(ends) if b > a]
        return [self._decoders.submit(self.images.decode, piece) for piece in pieces]


def _repetition(samples: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How often each sample has come before in this order."""
    order = np.argsort(samples, kind="stable")
    ordered = samples[order]
    _, starts, counts = np.unique(ordered, return_index=True, return_counts=True)
    found = np.empty(len(samples), np.int64)
    found[order] = np.arange(len(samples)) - np.repeat(starts, counts)
    return found


def _joined(
    pieces: list[Future[UInt8[np.ndarray, "some 3 side side"]]],
) -> UInt8[np.ndarray, "some 3 side side"]:
    found = [piece.result() for piece in pieces]
    return found[0] if len(found) == 1 else np.concatenate(found)
