"""What a rank trains and is tested on, of images or of features, and the model for it."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cwerm.algorithms.training.batches import (
    FeatureBatches,
    Normaliser,
    PixelBatches,
    Standardiser,
    StoredBatches,
)
from cwerm.algorithms.training.evaluation import BATCH
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.algorithms.training.streaming.batches import Pixels, StreamedBatches
from cwerm.stages import common
from cwerm.stages.backbone_weights import same_weights
from cwerm.stages.classifiers import create_classifier, create_pretrained, freeze_unused
from cwerm.stages.train.held_pixels import held_pixels
from cwerm.stages.train.limits import is_streamed
from cwerm.stages.train.parts import StoredImages
from cwerm.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FeatureData", "HeldOut", "PixelData", "TrainingData", "training_data"]


class HeldOut(NamedTuple):
    """One rank's share of the images of a split, without what a person removed."""

    blocks: Callable[[], Iterable[Tensor]]
    """All of them, some at a time, on the rank's device."""
    labels: Tensor
    """int64, on the CPU."""
    ids: np.ndarray
    """int64, ascending."""


class TrainingData(ABC):
    """One rank's copy of the data, on its device."""

    batches: StoredBatches | StreamedBatches
    normalise: Any
    """From samples as they are held to what the model takes."""
    model: nn.Module
    about: dict[str, Any]
    """How an image or a vector becomes the model's input: lists, numbers and tensors."""

    def __init__(self, config: dict[str, Any], ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.store: ArtifactStore = config["store"]

    def held_out(self, split: str) -> HeldOut:
        """This rank's share of the ``test`` or ``validation`` images."""
        import torch

        asked = self.store.read(self.config["labels_in_use"], f"{split}_labels")
        kept = np.flatnonzero(~common.column(asked, "removed"))
        # those that lie side by side, so that few parts are read by two ranks
        rank, ranks = self.ranks.rank, self.ranks.world_size
        ids = kept[len(kept) * rank // ranks : len(kept) * (rank + 1) // ranks]
        labels = torch.from_numpy(common.column(asked, "label")[ids].astype(np.int64))
        return HeldOut(self.blocks_of(split, ids), labels, ids)

    def targets(self, recipe: Recipe) -> tuple[Any, ...]:
        """What is learned of each sample, and how: what batches take beside the samples."""
        import torch

        targets, device = self.config["targets"], self.ranks.device
        return (
            torch.from_numpy(targets.labels.astype(np.int64)).to(device),
            torch.from_numpy(targets.weights).to(device),
            self.normalise,
            recipe,
            self.ranks,
            self.config["samples_per_epoch"],
            targets.beliefs,
        )

    @abstractmethod
    def blocks_of(self, split: str, ids: np.ndarray) -> Callable[[], Iterable[Tensor]]:
        """Some images of a split, whose ``ids`` ascend, a block at a time; as often as it is called."""


def training_data(config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> TrainingData:
    """What the settings ask for."""
    kind = FeatureData if config["settings"].input == "features" else PixelData
    return kind(config, recipe, ranks)


class PixelData(TrainingData):
    """Images, held decoded or streamed, and a network of timm's."""

    def __init__(self, config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> None:
        import torch

        super().__init__(config, ranks)
        images: Artifact = config["images"]
        self.images, self.size = images, int(config["size"])
        size, settings = self.size, config["settings"]
        classes = len(images.info["class_names"])
        train = self._stored("images", config["samples"])
        held = None if is_streamed(settings, len(train.ids), size) else self._held(train)
        name, seed = settings.model, settings.seed
        if settings.weights is None:
            self.normalise = self._measured(train) if held is None else Normaliser.of(held)
            self.model = create_classifier("train.model", name, classes, size, seed)
        else:
            with tempfile.TemporaryDirectory() as folder:
                place = config["weights"], settings.weights, Path(folder), config["s3"]
                weights = same_weights(name, *place, key="train.weights")
                self.model, spec, _ = create_pretrained(name, weights, classes, size, seed)
            self.normalise = Normaliser(spec.mean, spec.std)
        if held is None:
            asked = {"window": settings.window, "threads": torch.get_num_threads()}
            self.batches = StreamedBatches(train, *self.targets(recipe), **asked)
        else:
            samples = torch.from_numpy(held).to(ranks.device)
            self.batches = PixelBatches(samples, *self.targets(recipe))
        if ranks.world_size > 1:
            freeze_unused(self.model, size)
        figures = {name: list(value) for name, value in asdict(self.normalise).items()}
        self.about = {**figures, "image_size": size}

    def _stored(self, table: str, ids: np.ndarray) -> StoredImages:
        return StoredImages(self.store, self.images, table, ids, self.size)

    def _held(self, images: StoredImages) -> np.ndarray:
        import torch

        return held_pixels(images, self.ranks, torch.get_num_threads())

    def _measured(self, images: StoredImages) -> Normaliser:
        """By some images of parts from everywhere, each rank looking at a share."""
        counts = images.channel_counts(self.ranks.rank, self.ranks.world_size)
        return Normaliser.of_counts(np.sum(self.ranks.gather(counts), axis=0))

    def blocks_of(self, split: str, ids: np.ndarray) -> Callable[[], Iterable[Tensor]]:
        """Pixels uint8 [n, 3, size, size]; held where they are not many."""
        import torch

        device, threads = self.ranks.device, torch.get_num_threads()
        images = self._stored(f"{split}_images", ids)
        if not is_streamed(self.config["settings"], len(ids), self.size):
            held = np.empty((len(ids), 3, self.size, self.size), np.uint8)
            images.decode_into(held, threads)
            samples = torch.from_numpy(held).to(device)
            return lambda: samples.split(BATCH)

        def streamed() -> Iterator[Tensor]:
            order = np.split(np.arange(len(ids)), range(BATCH, len(ids), BATCH))
            with Pixels(images, order, threads) as blocks:
                for block in blocks:
                    yield torch.from_numpy(block).to(device)

        return streamed


class FeatureData(TrainingData):
    """Stored features, and a head."""

    def __init__(self, config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> None:
        import torch

        from cwerm.algorithms.networks.heads import make_head

        super().__init__(config, ranks)
        settings = config["settings"]
        train = _vectors(self.store, config["extract"], "features", config["samples"])
        normalise = Standardiser.of(train)
        self.normalise = normalise.to(ranks.device)
        samples = torch.from_numpy(train).to(ranks.device)
        self.batches = FeatureBatches(samples, *self.targets(recipe))
        classes = len(config["images"].info["class_names"])
        self.model = make_head(settings.model, train.shape[1], classes, settings.seed)
        self.about = {"mean": normalise.mean, "std": normalise.std}

    def blocks_of(self, split: str, ids: np.ndarray) -> Callable[[], Iterable[Tensor]]:
        """Features [n, d] in the type in which they are stored."""
        import torch

        stage = "embed_val" if split == "validation" else "embed_test"
        found = _vectors(self.store, self.config[stage], f"{split}_features", ids)
        samples = torch.from_numpy(found).to(self.ranks.device)
        return lambda: samples.split(BATCH)


def _vectors(store: ArtifactStore, features: Artifact, table: str, ids: np.ndarray) -> np.ndarray:
    """Features of some samples [n, d], in the type in which they are stored; ``ids`` ascend."""
    blocks, start = [], 0
    for index, part in enumerate(features.tables[table]):
        first, last = np.searchsorted(ids, [start, start + part.rows])
        if last > first:
            rows = common.column(store.read_part(features, table, index, ["feature"]), "feature")
            blocks.append(rows[ids[first:last] - start])
        start += part.rows
    return np.concatenate(blocks)
