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
from cwerm.runtime import saved_state
from cwerm.stages import common, pixels
from cwerm.stages.classifiers import classifier_size, create_classifier, savable
from cwerm.stages.reweight.settings import Learning, ReweightSettings
from cwerm.stages.reweight.states import state_paths
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
    learner: dict[str, Any] = field(default_factory=dict)  # what the files are those of


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


def fit_posterior(task: Task) -> Learned:
    """How likely each label is right (`LabelPosterior`); the control ``untrained`` weighs all alike."""
    from safetensors.torch import save

    from cwerm.algorithms.labels.posterior import LabelPosterior

    names, sets = task.class_names, _read_sets(task)
    posterior = LabelPosterior(len(names), task.settings.seed)
    with blame("reweight", names):
        posterior.fit(
            sets.inputs,
            sets.labels,
            trusted_features=sets.meta_inputs,
            trusted_labels=sets.meta_labels,
        )
    if task.settings.untrained:
        posterior.close()
    rows = np.arange(len(sets.ids))
    judged = posterior.judge(sets.inputs, sets.labels, reference_rows=rows)
    found = {
        "open": posterior.open,
        "noise_rate": posterior.noise_rate,
        "noise_rate_interval": list(posterior.noise_rate_interval),
        "warnings": list(posterior.warnings_for(names)),
    }
    history = {**found, "transitions": posterior.transitions.tolist()}
    files = {"label_posterior.safetensors": save(posterior.state())}
    losses = -np.log(np.maximum(judged.quality, np.finfo(np.float32).tiny))
    learner = {"method": "posterior"}
    return Learned(sets.ids, judged.weight, losses, history, files, found, learner)


def fit_weights(
    task: Task,
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

    names, sets = task.class_names, _read_sets(task)
    storage, slots = task.writer.storage, state_paths(task.writer)
    saved = time.monotonic()

    def after_epoch(epoch: int, state: Any) -> None:
        nonlocal saved
        on_epoch(epoch + 1)
        if options.rank == 0 and time.monotonic() - saved > SAVE_SECONDS:
            # in turns, so that the one before stays whole
            saved_state.write(storage, slots[0], state(), epoch + 1)
            slots.reverse()
            saved = time.monotonic()

    learning = task.settings.learning
    assert learning, "the posterior is learned elsewhere"
    extra = {}
    if learning.neighbors is not None:
        extra["extra"] = _agreement(task, sets, learning.neighbors)
    found = saved_state.find(storage, slots, note)
    begin_anew = [(None, None)]
    for used, state in itertools.chain(saved_state.load(storage, found, note), begin_anew):
        own = replace(sets, classifier=copy.deepcopy(sets.classifier))
        method = _method(task.settings, learning, own, len(names), options, device)
        try:
            with blame("reweight", names):
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
    if task.settings.method == "metaweightnet":
        files["weight_net.safetensors"] = save(savable(method.weight_net.state_dict()))
    learner = {
        "method": task.settings.method,
        "input": learning.input,
        "model": learning.model,
        "hidden": learning.hidden,
        "agrees": learning.neighbors is not None,
    }
    return Learned(sets.ids, weights, method.losses_, method.history_, files, {}, learner)


def _method(
    settings: ReweightSettings,
    learning: Learning,
    sets: _Sets,
    num_classes: int,
    options: Any,
    device: Any,
) -> Any:
    from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet

    known: dict[str, Any] = {
        "epochs": learning.num_epochs(len(sets.ids)),
        "batch_size": learning.batch_size,
        "meta_batch_size": learning.meta_batch_size,
        "lr": learning.lr,
        "momentum": learning.momentum,
        "weight_decay": learning.weight_decay,
        "average_last": learning.average_last,
        "seed": settings.seed,
        "device": device,
        "augment": _crop_and_flip if learning.augment and settings.on_images else None,
        "options": options,
        "num_classes": num_classes,
    }
    if settings.method == "l2r":
        return LearningToReweight(sets.classifier, **known)
    return MetaWeightNet(
        sets.classifier,
        **known,
        # at a rate of 0 the weight net stays as it is drawn: the control
        weight_lr=0.0 if settings.untrained else learning.weight_lr,
        hidden=learning.hidden,
        meta_every=learning.meta_every,
    )


def _read_sets(task: Task) -> _Sets:
    store, images, selection = task.store, task.inputs["ingest"], task.inputs["select"]
    coreset = store.read(selection, "coreset")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label").astype(np.int64)
    meta_table = selection.info["meta_images"]
    if "meta" in selection.tables:
        meta = store.read(selection, "meta")
        meta_ids = common.column(meta, "id")
        meta_labels = common.column(meta, "label").astype(np.int64)
    learning = task.settings.learning
    if learning is None or learning.model is None:
        features = task.inputs["extract"]
        inputs = _vectors(store, features, "features", ids)
        if "meta" not in selection.tables:
            return _Sets(ids, inputs, labels, None, None)
        meta_table = meta_table.replace("images", "features")
        meta_inputs = _vectors(store, features, meta_table, meta_ids)
        return _Sets(ids, inputs, labels, meta_inputs, meta_labels)
    import torch

    from cwerm.algorithms.networks.timm_models import channels_last
    from cwerm.algorithms.training.batches import Normaliser

    asked = pixels.square_size(learning.image_size, images)
    size = classifier_size("reweight", learning.model, asked)
    train = pixels.take_pixels(store, images, "images", ids, size)
    trusted = pixels.take_pixels(store, images, meta_table, meta_ids, size)
    normalise = Normaliser.of(train)
    classes, seed = len(task.class_names), task.settings.seed
    model = create_classifier("reweight.model", learning.model, classes, size, seed)
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


def _agreement(task: Task, sets: _Sets, neighbors: int) -> np.ndarray:
    """Label agreement of the coreset's samples with each other, float32 [m, 1]."""
    from cwerm.algorithms.neighbors import NeighborIndex
    from cwerm.algorithms.spreading.agreement import label_agreement, search_others

    vectors = sets.inputs
    if task.settings.on_images:
        features = task.inputs["extract"]
        vectors = np.stack(common.take_rows(task.store, features, "features", "feature", sets.ids))
    rows = np.arange(len(sets.ids))
    _, found = search_others(NeighborIndex(vectors, rows), vectors, rows, neighbors)
    return label_agreement(sets.labels[found], sets.labels)[:, None]


def _crop_and_flip(inputs: Any, generator: Any) -> Any:
    import torch

    from cwerm.algorithms.training.erm import crop_and_flip

    padding = inputs.shape[-1] // CROP_SHARE
    offsets = torch.randint(0, 2 * padding + 1, (len(inputs), 2), generator=generator)
    flips = torch.rand(len(inputs), generator=generator) < 0.5
    return crop_and_flip(inputs, offsets.to(inputs.device), flips.to(inputs.device), padding)
