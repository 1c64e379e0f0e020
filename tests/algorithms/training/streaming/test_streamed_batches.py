"""Batches that are read part by part: images, labels and weights of their order, and few in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cwerm.algorithms.training import erm
from cwerm.algorithms.training.batches import Batch, Normaliser
from cwerm.algorithms.training.fit import Training
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.streaming.batches import StreamedBatches
from cwerm.algorithms.training.streaming.order import stream_batches

SIDE, ROWS, PARTS = 8, 10, 40
NORMALISE = Normaliser((0.0,) * 3, (1 / 255,) * 3)  # pixels as they are


class Stored:
    """Images of one colour, that of their number, which note what is read and what is held."""

    def __init__(self, parts: int = PARTS) -> None:
        self.sizes, self.side = np.full(parts, ROWS), SIDE
        self.reads: list[int] = []
        self.held = self.most_held = 0
        self._lock = threading.Lock()

    def read(self, part: int, images: np.ndarray) -> list[int]:
        assert {*(images // ROWS)} == {part}
        with self._lock:
            self.reads.append(part)
            self.held += len(images)
            self.most_held = max(self.held, self.most_held)
        return [int(image) for image in images]

    def decode(self, cells: Sequence[int]) -> np.ndarray:
        with self._lock:
            self.held -= len(cells)
        found = np.zeros((len(cells), 3, SIDE, SIDE), np.uint8)
        found[:, 0] = (np.array(cells) // 256)[:, None, None]
        found[:, 1:] = (np.array(cells) % 256)[:, None, None, None]
        return found


def streamed(
    images: Stored, recipe: Recipe, ranks: Ranks, turns: int | None = None
) -> StreamedBatches:
    number = int(images.sizes.sum())
    labels, weights = torch.arange(number) % 7, torch.arange(number) / number
    asked = labels, weights, NORMALISE, recipe, ranks, turns or number
    return StreamedBatches(images, *asked, window=16, threads=2)


def numbers(batch: Batch) -> list[int]:
    """Which images are in a batch, by their colours."""
    found = batch.inputs.amax((2, 3))
    return (found[:, 0] * 256 + found[:, 1]).long().tolist()


@pytest.mark.parametrize("turns", [None, 150, 1030])
def test_images_labels_and_weights_belong_together(turns: int | None) -> None:
    images = Stored()
    batches = streamed(images, Recipe(3, 32, seed=4), Ranks(), turns)
    number = PARTS * ROWS
    order = stream_batches(images.sizes, turns or number, 32, 16, 4, 2)
    found = [*batches.epoch(2)]
    assert batches.steps == len(found) == len(order)
    for batch, samples in zip(found, order, strict=True):
        assert numbers(batch) == samples.tolist()
        assert batch.labels.tolist() == (samples % 7).tolist()
        np.testing.assert_allclose(batch.weights, samples / number, rtol=1e-6)
        assert batch.size == len(samples)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_see_what_one_would(world_size: int) -> None:
    recipe = Recipe(1, 32, crop_padding=2, flip=True, seed=1)
    alone = [*streamed(Stored(), recipe, Ranks()).epoch(0)]
    each = [streamed(Stored(), recipe, Ranks(world_size, r)).epoch(0) for r in range(world_size)]
    for batch, *parts in zip(alone, *each, strict=True):
        torch.testing.assert_close(torch.cat([p.inputs for p in parts]), batch.inputs)
        torch.testing.assert_close(torch.cat([p.labels for p in parts]), batch.labels)


def test_each_part_is_read_once_and_few_are_held() -> None:
    images = Stored(400)
    for _ in streamed(images, Recipe(1, 32), Ranks()).epoch(0):
        pass
    assert sorted(images.reads) == [*range(400)]
    assert images.held == 0
    # those that are mixed, those read ahead, and two batches that are being decoded
    assert images.most_held <= (16 + 8 + 4) * ROWS + 3 * 32


def test_an_epoch_from_its_middle_is_the_rest_of_it() -> None:
    recipe = Recipe(2, 32, crop_padding=2, flip=True)
    whole = [*streamed(Stored(), recipe, Ranks()).epoch(1)]
    images = Stored()
    rest = [*streamed(images, recipe, Ranks()).epoch(1, 9)]
    assert len(rest) == len(whole) - 9
    for one, other in zip(rest, whole[9:], strict=True):
        torch.testing.assert_close(one.inputs, other.inputs)
        torch.testing.assert_close(one.weights, other.weights)


def test_what_a_reader_raises_is_raised_and_no_thread_is_left() -> None:
    class Broken(Stored):
        def read(self, part: int, images: np.ndarray) -> list[int]:
            if part == 7:
                raise OSError("gone")
            return super().read(part, images)

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        for _ in streamed(Broken(), Recipe(1, 32), Ranks()).epoch(0):
            pass
    some = streamed(Stored(), Recipe(1, 32), Ranks()).epoch(0)
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.Dropout(0.3),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 6 * 6, 7),
    )


@pytest.mark.parametrize("stop", [1, 6, 12])
def test_a_training_that_goes_on_in_mid_epoch_is_the_undisturbed_one(stop: int) -> None:
    recipe = Recipe(2, 32, lr=0.05, crop_padding=2, flip=True)
    whole = Training(network(), streamed(Stored(), recipe, Ranks()), recipe, Ranks())
    kept = {}

    def keep(epoch: int, step: int, loss: torch.Tensor) -> None:
        if (epoch, step) == (1, stop - 1):
            import copy

            kept.update(copy.deepcopy(whole.state_within()))

    for epoch in range(2):
        whole.history.append(whole.epoch(epoch, keep))
    other = Training(network(), streamed(Stored(), recipe, Ranks()), recipe, Ranks())
    other.check(kept)
    other.restore(kept)
    assert len(other.history) == 1
    steps = []
    metrics = other.epoch(1, lambda epoch, step, loss: steps.append(step))
    assert steps == [*range(stop, len(erm.batch_sizes(400, 32)))]
    expected = {k: v for k, v in whole.history[1].items() if "second" not in k}
    assert {k: v for k, v in metrics.items() if "second" not in k} == expected
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_a_state_of_another_step_is_refused() -> None:
    recipe = Recipe(2, 32)
    made = Training(network(), streamed(Stored(), recipe, Ranks()), recipe, Ranks())
    state = made.state()
    totals = torch.zeros(3, dtype=torch.float64)
    for step, error in [(13, "of other steps"), (0, "of other steps"), (2.0, "of another kind")]:
        with pytest.raises(ValueError, match=error):
            made.check({**state, "begun": {"step": step, "totals": totals, "seconds": 1.0}})
    with pytest.raises(ValueError, match="of another kind"):
        made.check({**state, "begun": {"step": 2, "totals": totals[:2], "seconds": 1.0}})
