"""What a rank trains and is tested on, of images or of features, and the model for it."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
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
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Recipe
from cwerm.stages import common, pixels
from cwerm.stages.backbone_weights import same_weights
from cwerm.stages.classifiers import create_classifier, create_pretrained, freeze_unused
from cwerm.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FeatureData", "HeldOut", "PixelData", "TrainingData", "training_data"]


class HeldOut(NamedTuple):
    """One rank's share of the images of a split, without what a person removed."""

    inputs: Tensor
    """As they are held, on the rank's device."""
    labels: Tensor
    """int64, on the CPU."""
    ids: np.ndarray
    """int64, ascending."""


class TrainingData(ABC):
    """One rank's copy of the data, on its device."""

    batches: StoredBatches
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
        ids = kept[self.ranks.rank :: self.ranks.world_size]
        labels = torch.from_numpy(common.column(asked, "label")[ids].astype(np.int64))
        inputs = torch.from_numpy(self.read(split, ids)).to(self.ranks.device)
        return HeldOut(inputs, labels, ids)

    def batches_of(
        self, kind: type[StoredBatches], samples: np.ndarray, recipe: Recipe
    ) -> StoredBatches:
        """Batches of the samples that are trained on, with what is learned of each."""
        import torch

        targets, device = self.config["targets"], self.ranks.device
        return kind(
            torch.from_numpy(samples).to(device),
            torch.from_numpy(targets.labels.astype(np.int64)).to(device),
            torch.from_numpy(targets.weights).to(device),
            self.normalise,
            recipe,
            self.ranks,
            self.config["samples_per_epoch"],
            targets.beliefs,
        )

    @abstractmethod
    def read(self, split: str, ids: np.ndarray) -> np.ndarray:
        """Some images of a split as they are held; ``ids`` ascend."""


def training_data(config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> TrainingData:
    """What the settings ask for."""
    kind = FeatureData if config["settings"].input == "features" else PixelData
    return kind(config, recipe, ranks)


class PixelData(TrainingData):
    """Decoded images, and a network of timm's."""

    def __init__(self, config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> None:
        super().__init__(config, ranks)
        images: Artifact = config["images"]
        self.images, self.size = images, int(config["size"])
        size, settings = self.size, config["settings"]
        classes = len(images.info["class_names"])
        train = pixels.load_pixels(self.store, images, "images", size)[config["samples"]]
        name, seed = settings.model, settings.seed
        if settings.weights is None:
            self.normalise = Normaliser.of(train)
            self.model = create_classifier("train.model", name, classes, size, seed)
        else:
            with tempfile.TemporaryDirectory() as folder:
                place = config["weights"], settings.weights, Path(folder), config["s3"]
                weights = same_weights(name, *place, key="train.weights")
                self.model, spec, _ = create_pretrained(name, weights, classes, size, seed)
            self.normalise = Normaliser(spec.mean, spec.std)
        self.batches = self.batches_of(PixelBatches, train, recipe)
        if ranks.world_size > 1:
            freeze_unused(self.model, size)
        figures = {name: list(value) for name, value in asdict(self.normalise).items()}
        self.about = {**figures, "image_size": size}

    def read(self, split: str, ids: np.ndarray) -> np.ndarray:
        """Pixels uint8 [n, 3, size, size]."""
        return pixels.load_pixels(self.store, self.images, f"{split}_images", self.size)[ids]


class FeatureData(TrainingData):
    """Stored features, and a head."""

    def __init__(self, config: dict[str, Any], recipe: Recipe, ranks: Ranks) -> None:
        from cwerm.algorithms.networks.heads import make_head

        super().__init__(config, ranks)
        settings = config["settings"]
        train = _vectors(self.store, config["extract"], "features", config["samples"])
        normalise = Standardiser.of(train)
        self.normalise = normalise.to(ranks.device)
        self.batches = self.batches_of(FeatureBatches, train, recipe)
        classes = len(config["images"].info["class_names"])
        self.model = make_head(settings.model, train.shape[1], classes, settings.seed)
        self.about = {"mean": normalise.mean, "std": normalise.std}

    def read(self, split: str, ids: np.ndarray) -> np.ndarray:
        """Features [n, d] in the type in which they are stored."""
        stage = "embed_val" if split == "validation" else "embed_test"
        return _vectors(self.store, self.config[stage], f"{split}_features", ids)


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
