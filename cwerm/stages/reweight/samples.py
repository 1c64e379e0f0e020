"""Coreset and meta set as a method sees them, read from the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cwerm.methods.samples import Samples
from cwerm.stages import common, pixels
from cwerm.stages.classifiers import classifier_size, create_classifier
from cwerm.stages.reweight.settings import ReweightSettings
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.writing import Writer


@dataclass(frozen=True)
class Task:
    """What is to be learned, and from what."""

    settings: ReweightSettings
    inputs: dict[str, Artifact]
    store: ArtifactStore
    writer: Writer

    @property
    def class_names(self) -> list[str]:
        """Of the training images."""
        return self.inputs["ingest"].info["class_names"]


@dataclass(frozen=True)
class Sets:
    """What is learned from."""

    ids: np.ndarray
    """int64 [m], of the coreset."""
    reference: Samples
    clean: Samples | None
    classifier: Any = None
    """Of images; None for features."""
    pictures: dict[str, Any] | None = None
    """How images became inputs: ``image_size``, ``mean`` and ``std``."""


def read_sets(task: Task) -> Sets:
    """Both sets, with what the method reads."""
    store, selection = task.store, task.inputs["select"]
    coreset = store.read(selection, "coreset")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label").astype(np.int64)
    table, meta_ids, meta_labels = selection.info["meta_images"], ids[:0], labels[:0]
    if "meta" in selection.tables:
        meta = store.read(selection, "meta")
        meta_ids = common.column(meta, "id")
        meta_labels = common.column(meta, "label").astype(np.int64)
    classifier = pictures = None
    reads = task.settings.method.reads
    if reads == "images":
        own, other, classifier, pictures = _images(task, ids, table, meta_ids)
    elif reads == "features":
        own = vectors(task, "features", ids)
        other = vectors(task, table.replace("images", "features"), meta_ids)
    else:
        own, other = np.empty((len(ids), 0), np.float32), np.empty((len(meta_ids), 0), np.float32)
    clean = Samples(other, meta_labels) if len(meta_ids) else None
    in_use = task.inputs["label"]
    known = common.known_of(store, in_use)[ids]
    before = common.uncorrected_of(store, in_use)[ids].astype(np.int64)
    reference = Samples(own, labels, _agreement(task, ids, labels), known, before)
    return Sets(ids, reference, clean, classifier, pictures)


def vectors(task: Task, table: str, ids: np.ndarray) -> np.ndarray:
    """Features of these samples, float32 [n, d]."""
    if not len(ids):
        return np.empty((0, 0), np.float32)
    rows = common.take_rows(task.store, task.inputs["extract"], table, "feature", ids)
    return np.stack(rows).astype(np.float32)


def _images(task: Task, ids: np.ndarray, table: str, meta_ids: np.ndarray) -> tuple[Any, ...]:
    import torch

    from cwerm.algorithms.networks.timm_models import channels_last
    from cwerm.algorithms.training.batches import Normaliser

    method: Any = task.settings.method
    store, images = task.store, task.inputs["ingest"]
    size = classifier_size("reweight", method.model, pixels.square_size(method.image_size, images))
    own = pixels.take_pixels(store, images, "images", ids, size)
    other = pixels.take_pixels(store, images, table, meta_ids, size)
    normalise = Normaliser.of(own)
    seed, classes = task.settings.seed, len(task.class_names)
    model = create_classifier("reweight.model", method.model, classes, size, seed)
    return (
        normalise(torch.from_numpy(own)).numpy(),
        normalise(torch.from_numpy(other)).numpy(),
        channels_last(model),
        {"mean": normalise.mean, "std": normalise.std, "image_size": size},
    )


def _agreement(task: Task, ids: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Label agreement of the coreset's samples with each other, float32 [m, 1], where it is asked for."""
    from cwerm.algorithms.neighbors import NeighborIndex
    from cwerm.algorithms.spreading.agreement import label_agreement, search_others

    neighbors = task.settings.neighbors
    if neighbors is None:
        return None
    features, rows = vectors(task, "features", ids), np.arange(len(ids))
    _, found = search_others(NeighborIndex(features, rows), features, rows, neighbors)
    return label_agreement(labels[found], labels)[:, None]
