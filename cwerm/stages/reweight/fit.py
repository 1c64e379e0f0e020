"""What the reweight stage runs, in one actor or on every rank: the learning, on arrays of the store."""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cwerm.errors import blame
from cwerm.job.tree import Job
from cwerm.runtime import saved_state
from cwerm.stages import common, extract, ingest, pixels, select
from cwerm.stages.classifiers import classifier_size, create_classifier, savable
from cwerm.store.artifacts import Artifact, ArtifactStore, Writer
from cwerm.terminal import console

SAVE_SECONDS = 5.0  # between saved states, from which an interrupted run goes on
CROP_SHARE = 8  # of the image's side, padded for random crops: 4 pixels of 32


@dataclass
class Learned:
    """Weights and losses of the coreset, what the broadcast needs to weigh others, and the history."""

    ids: np.ndarray
    weights: np.ndarray
    losses: np.ndarray
    history: Any
    files: dict[str, bytes] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)  # for the user, of all labels


@dataclass
class _Sets:
    """Coreset and meta set as the method sees them."""

    ids: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray
    meta_inputs: Any  # arrays, or None where nothing is known to be right
    meta_labels: Any
    classifier: Any = None  # None: a head on the features
    description: dict[str, Any] = field(default_factory=dict)  # how images became its inputs


def num_epochs(job: Job, coreset_size: int) -> int:
    """Epochs as asked, or enough for the weight net, which moves once a step, to learn."""
    if job.reweight.epochs is not None:
        return job.reweight.epochs
    from cwerm.algorithms.reweighting.settings import usual_epochs

    return usual_epochs(coreset_size, job.reweight.batch_size)


def fit_posterior(job: Job, store: ArtifactStore) -> Learned:
    """How likely each label is right (`LabelPosterior`); the control ``untrained`` weighs all alike."""
    from safetensors.torch import save

    from cwerm.algorithms.labels.posterior import LabelPosterior

    images = common.require(ingest, job, store)
    sets = _read_sets(job, store, images, on_features=True)
    posterior = LabelPosterior(len(images.info["class_names"]), job.seed)
    with blame("reweight", images.info["class_names"]):
        posterior.fit(
            sets.inputs,
            sets.labels,
            trusted_features=sets.meta_inputs,
            trusted_labels=sets.meta_labels,
        )
    if job.control == "untrained":
        posterior.close()
    rows = np.arange(len(sets.ids))
    judged = posterior.judge(sets.inputs, sets.labels, reference_rows=rows)
    found = {
        "open": posterior.open,
        "noise_rate": posterior.noise_rate,
        "noise_rate_interval": list(posterior.noise_rate_interval),
        "warnings": list(posterior.warnings_for(images.info["class_names"])),
    }
    history = {**found, "transitions": posterior.transitions.tolist()}
    files = {"label_posterior.safetensors": save(posterior.state())}
    losses = -np.log(np.maximum(judged.quality, np.finfo(np.float32).tiny))
    return Learned(sets.ids, judged.weight, losses, history, files, found)


def fit_weights(
    job: Job,
    store: ArtifactStore,
    writer: Writer,
    options: Any,
    on_epoch: Callable[[int], object],
    device: Any = None,
    note: Callable[[str], object] = console.note,
) -> Learned:
    """Meta-Weight-Net or learning to reweight, going on from the state that was saved last.

    ``options`` are `StepOptions`, which tell a rank its share; rank 0 saves the state. What of the saved
    states is of no use is told by ``note``.
    """
    from safetensors.torch import save

    from cwerm.algorithms.reweighting.meta_training import UnusableStateError

    images = common.require(ingest, job, store)
    sets = _read_sets(job, store, images, on_features=job.reweight.input == "features")
    storage, slots = writer.storage, state_paths(writer)
    saved = time.monotonic()

    def after_epoch(epoch: int, state: Any) -> None:
        nonlocal saved
        on_epoch(epoch + 1)
        if options.rank == 0 and time.monotonic() - saved > SAVE_SECONDS:
            # in turns, so that the one before stays whole
            saved_state.write(storage, slots[0], state(), epoch + 1)
            slots.reverse()
            saved = time.monotonic()

    extra = {}
    if agrees(job):
        extra["extra"] = _agreement(job, store, sets)
    found = saved_state.find(storage, slots, note)
    begin_anew = [(None, None)]
    for used, state in itertools.chain(saved_state.load(storage, found, note), begin_anew):
        own = replace(sets, classifier=copy.deepcopy(sets.classifier))
        method = _method(job, own, len(images.info["class_names"]), options, device)
        try:
            with blame("reweight", images.info["class_names"]):
                weights = method.fit(
                    sets.inputs,
                    sets.labels,
                    sets.meta_inputs,
                    sets.meta_labels,
                    on_epoch=after_epoch,
                    state=state,
                    **extra,
                )
        except UnusableStateError as error:
            assert used, "to begin anew needs no state"
            note(f"{used.path}.pt does not fit ({error}), and counts as none")
            continue
        break
    description = {"cwerm": json.dumps(sets.description)}
    files = {
        "classifier.safetensors": save(
            savable(method.classifier.state_dict()), metadata=description
        )
    }
    if job.reweight_method == "metaweightnet":
        files["weight_net.safetensors"] = save(savable(method.weight_net.state_dict()))
    return Learned(sets.ids, weights, method.losses_, method.history_, files)


def agrees(job: Job) -> bool:
    """Whether the weight net sees the label agreement beside the loss."""
    return job.reweight_method == "metaweightnet" and job.broadcast_method == "agreement"


def state_paths(writer: Writer) -> list[str]:
    """Where an unfinished run keeps its last two states, without suffixes."""
    folder = f"artifacts/{writer.stage}/{writer.key}"
    return [f"{folder}/{saved_state.NAME}", f"{folder}/{saved_state.NAME}-2"]


def has_state(writer: Writer) -> bool:
    """Whether an earlier attempt left a state that is whole; says so of those that are not."""
    found = saved_state.find(writer.storage, state_paths(writer), console.note)
    return any(True for _ in saved_state.intact(writer.storage, found, console.note))


def forget_states(writer: Writer) -> None:
    """Remove what an unfinished run would go on from."""
    for path in state_paths(writer):
        for suffix in (".pt", ".json"):
            writer.storage.delete(path + suffix)


def _method(job: Job, sets: _Sets, num_classes: int, options: Any, device: Any) -> Any:
    from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet

    section = job.reweight
    settings: dict[str, Any] = {
        "epochs": num_epochs(job, len(sets.ids)),
        "batch_size": section.batch_size,
        "meta_batch_size": section.meta_batch_size,
        "lr": section.lr,
        "momentum": section.momentum,
        "weight_decay": section.weight_decay,
        "average_last": section.average_last,
        "seed": job.seed,
        "device": device,
        "augment": _crop_and_flip if section.augment and section.input == "images" else None,
        "options": options,
        "num_classes": num_classes,
    }
    if job.reweight_method == "l2r":
        return LearningToReweight(sets.classifier, **settings)
    return MetaWeightNet(
        sets.classifier,
        **settings,
        # at a rate of 0 the weight net stays as it is drawn: the control
        weight_lr=0.0 if job.control == "untrained" else section.weight_lr,
        hidden=section.hidden,
        meta_every=section.meta_every,
    )


def _read_sets(job: Job, store: ArtifactStore, images: Artifact, *, on_features: bool) -> _Sets:
    selection = common.require(select, job, store)
    coreset = store.read(selection, "coreset")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label").astype(np.int64)
    meta_table = selection.info["meta_images"]
    if "meta" in selection.tables:
        meta = store.read(selection, "meta")
        meta_ids = common.column(meta, "id")
        meta_labels = common.column(meta, "label").astype(np.int64)
    if on_features:
        features = common.require(extract, job, store)
        inputs = _vectors(store, features, "features", ids)
        if "meta" not in selection.tables:
            return _Sets(ids, inputs, labels, None, None)
        meta_table = meta_table.replace("images", "features")
        meta_inputs = _vectors(store, features, meta_table, meta_ids)
        return _Sets(ids, inputs, labels, meta_inputs, meta_labels)
    import torch

    from cwerm.algorithms.networks.timm_models import channels_last
    from cwerm.algorithms.training.batches import Normaliser

    asked = pixels.square_size(job.reweight.image_size, images)
    size = classifier_size("reweight", job.reweight.model, asked)
    train = pixels.take_pixels(store, images, "images", ids, size)
    trusted = pixels.take_pixels(store, images, meta_table, meta_ids, size)
    normalise = Normaliser.of(train)
    classes = len(images.info["class_names"])
    model = create_classifier("reweight.model", job.reweight.model, classes, size, job.seed)
    return _Sets(
        ids,
        normalise(torch.from_numpy(train)).numpy(),
        labels,
        normalise(torch.from_numpy(trusted)).numpy(),
        meta_labels,
        channels_last(model),
        {"mean": normalise.mean, "std": normalise.std, "image_size": size},
    )


def _vectors(store: ArtifactStore, features: Artifact, table: str, ids: np.ndarray) -> np.ndarray:
    """Features of these samples, float32 [n, d]."""
    vectors = np.stack(common.take_rows(store, features, table, "feature", ids))
    return vectors.astype(np.float32)


def _agreement(job: Job, store: ArtifactStore, sets: _Sets) -> np.ndarray:
    """Label agreement of the coreset's samples with each other, float32 [m, 1]."""
    from cwerm.algorithms.neighbors import NeighborIndex
    from cwerm.algorithms.spreading.agreement import label_agreement, search_others

    vectors = sets.inputs
    if job.reweight.input == "images":
        features = common.require(extract, job, store)
        vectors = np.stack(common.take_rows(store, features, "features", "feature", sets.ids))
    rows = np.arange(len(sets.ids))
    _, found = search_others(NeighborIndex(vectors, rows), vectors, rows, job.neighbors)
    return label_agreement(sets.labels[found], sets.labels)[:, None]


def _crop_and_flip(inputs: Any, generator: Any) -> Any:
    import torch

    from cwerm.algorithms.training.erm import crop_and_flip

    padding = inputs.shape[-1] // CROP_SHARE
    offsets = torch.randint(0, 2 * padding + 1, (len(inputs), 2), generator=generator)
    flips = torch.rand(len(inputs), generator=generator) < 0.5
    return crop_and_flip(inputs, offsets.to(inputs.device), flips.to(inputs.device), padding)
