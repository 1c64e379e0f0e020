"""What of a training's settings depends on the data and the machine: sizes of images and batches, steps."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from cwerm.algorithms.training.recipe import Recipe
from cwerm.errors import UserError
from cwerm.runtime import batch_memory, capacity
from cwerm.runtime.asked import Run
from cwerm.stages import pixels
from cwerm.stages.classifiers import batch_bytes, pretrained_size, told_size
from cwerm.stages.train.settings import TrainSettings
from cwerm.store.artifacts import Artifact
from cwerm.terminal import console

if TYPE_CHECKING:
    from cwerm.algorithms.training.optimizing.schedule import Schedule

SMALL_BATCH = 64  # images a GPU: a rule of thumb, of which fewer count as few
MEMORY_MARGIN = 2.0  # gradients, optimizer state and the allocator's slack, over saved activations


def recipe_of(settings: TrainSettings) -> Recipe:
    """How to train; what the loss does not look at has its default."""
    names = {field.name for field in fields(Recipe)}
    return Recipe(**settings.model_dump(include=names, exclude_none=True))


def schedule_of(settings: TrainSettings, samples_per_epoch: int) -> Schedule:
    """The steps of the training; told where ``train.max_steps`` ends nothing.

    Raises:
        UserError: the warmup takes all of them.
    """
    from cwerm.algorithms.training.erm import batch_sizes
    from cwerm.algorithms.training.optimizing.schedule import Schedule

    steps = len(batch_sizes(samples_per_epoch, settings.batch_size))
    try:
        made = Schedule.of(recipe_of(settings), steps)
    except ValueError as error:
        raise UserError(f"train.warmup_epochs: {error}; warm up for fewer epochs") from None
    if settings.max_steps is not None and settings.max_steps > made.steps:
        console.note(
            f"train.max_steps: {settings.epochs} epochs are over before, after {made.steps:,} steps"
        )
    return made


def asked_size(settings: TrainSettings, images: Artifact) -> int:
    """Side of the images in pixels, before the model's own wishes."""
    if settings.image_size is None and settings.weights:
        return pretrained_size(settings.model, images)
    return pixels.square_size(settings.image_size, images)


def check_batch(settings: TrainSettings, images: Artifact, run: Run) -> None:
    """Refuse a batch that is too small for the workers or too large for their memory.

    Raises:
        UserError: naming the key to change.
    """
    size_of_run = capacity.size(run)
    workers = size_of_run.workers
    accumulate = settings.accumulate or 1
    check_batch_size(settings.batch_size, workers, accumulate)
    if settings.input == "features":
        return
    each = settings.batch_size // (workers * accumulate)
    if size_of_run.gpus and each < SMALL_BATCH:
        console.note(
            f"train.batch_size: {each} images a GPU, which waits for the host with so few; a larger batch, "
            "with a train.lr that grows along, uses it better"
        )
    size = told_size("train", settings.model, asked_size(settings, images), images)
    need = batch_bytes("train", settings.model, len(images.info["class_names"]), size)
    share = size_of_run.sharing_memory(workers) / workers
    need = int(MEMORY_MARGIN * need * share / accumulate)
    batch_memory.check_memory(run, "train.batch_size", need, settings.batch_size)


def check_batch_size(batch_size: int, workers: int, accumulate: int = 1) -> None:
    """Refuse a batch that leaves a worker fewer than two images at once, too few for BatchNorm.

    Raises:
        UserError: naming the smallest batch.
    """
    fewest = 2 * workers * accumulate
    if batch_size < fewest:
        parts = f" in {accumulate} parts each (train.accumulate)" if accumulate > 1 else ""
        raise UserError(
            f"train.batch_size: {batch_size} images over {workers} workers{parts}; use at least {fewest}"
        )


def is_streamed(settings: TrainSettings, images: int, side: int) -> bool:
    """Whether so many images of this side are more than is to be held."""
    assert settings.memory_bytes is not None
    return images * 3 * side**2 > settings.memory_bytes
