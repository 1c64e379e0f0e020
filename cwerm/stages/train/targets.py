"""What the network learns of each sample, from the weights that the broadcast gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.stages import common
from cwerm.stages.train.settings import TrainSettings
from cwerm.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from cwerm.algorithms.training.targets import Beliefs


class Targets(NamedTuple):
    """Of the samples that are trained on, [n] each."""

    labels: np.ndarray
    """int32."""
    weights: np.ndarray
    """float32, of mean 1."""
    beliefs: Beliefs | None = None
    """What is learned instead of the labels."""


def check_targets(job: Job) -> None:
    """Refuse targets that nothing tells, or that the loss does not take.

    Raises:
        UserError: naming the key to change.
    """
    targets = job.train.targets
    if targets in ("auto", "given"):
        return
    if job.method == "erm" or job.trains_on_coreset or not job.believes:
        raise UserError(
            f"train.targets: '{targets}' needs what is believed of each sample, which method cw-erm with "
            "reweight.method posterior and broadcast.method function tells; use given, or those"
        )
    if job.control != "none":
        raise UserError(
            f"train.targets: '{targets}' with control {job.control}, which is about weights; use given"
        )
    if targets == "soft" and job.train.loss != "cross_entropy":
        raise UserError(
            f"train.targets: 'soft' is learned by the cross entropy, not by train.loss {job.train.loss}; "
            "use relabel or given, or leave train.loss out"
        )


def chosen_targets(settings: TrainSettings, inputs: Mapping[str, Artifact]) -> str:
    """``given``, ``soft`` or ``relabel``; where no wrong labels were found, nothing else than given ones."""
    broadcast = inputs.get("broadcast")
    if broadcast is None or "beliefs" not in broadcast.tables:
        return "given"
    return broadcast.info["targets"] if settings.targets == "auto" else settings.targets


def make_targets(
    settings: TrainSettings,
    inputs: Mapping[str, Artifact],
    store: ArtifactStore,
    ids: np.ndarray,
    weights: np.ndarray,
) -> Targets:
    """What is learned of the samples ``ids``, ascending, which have these weights."""
    from cwerm.algorithms.training.targets import Beliefs, relabelled

    labels = common.labels_of(store, inputs["label"])[ids]
    targets = chosen_targets(settings, inputs)
    if targets == "given":
        return Targets(labels, weights)
    if targets == "relabel":
        table = store.read(inputs["broadcast"], "weights").sort_by("id")
        columns = ("suggested_label", "suggestion_probability")
        suggested, probability = (common.column(table, name)[ids] for name in columns)
        labels, weights = relabelled(labels, weights, suggested, probability)
        return Targets(labels, weights.astype(np.float32))
    table = store.read(inputs["broadcast"], "beliefs").sort_by("id")
    kept = [
        table.column(name).combine_chunks().flatten().to_numpy().reshape(len(table), -1)[ids]
        for name in ("classes", "probabilities")
    ]
    return Targets(labels, np.ones(len(ids), np.float32), Beliefs(*kept))
