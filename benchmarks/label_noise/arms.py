"""What each way of dealing with wrong labels has a network learn: targets, weights, or another loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import cwerm
from cwerm.algorithms.labels import LabelPosterior
from cwerm.algorithms.labels.judgement import Judgement
from label_noise.scenes import Scene
from label_noise.training import (
    Objective,
    early_learning,
    forward_corrected,
    generalised,
    small_loss,
    targets_and_weights,
)

__all__ = ["CONTROLS", "OURS", "PEERS", "WITH_TRUSTED", "arms_on", "chosen", "ours", "peer"]

SURE = 0.9
OURS = ("weights", "soft", "relabel")
CONTROLS = ("weights, permuted",)
PEERS = (
    *("ERM", "right labels only", "cleanlab, flagged dropped", "W-ERM, features"),
    *("ELR", "GCE", "small loss, true rate", "forward correction, true T"),
)


WITH_TRUSTED = ("W-ERM, features",)


class Arm(NamedTuple):
    """The samples that are trained on, None for all, and the loss of each."""

    objective: Objective
    rows: np.ndarray | None = None
    is_plain: bool = False
    """It is plain training: given labels, all weights 1."""


def ours(scene: Scene) -> tuple[dict[str, Arm], str]:
    """The arms on what cwerm finds, and the one that is chosen."""
    posterior = cwerm.LabelPosterior(scene.num_classes, scene.seed).fit(
        scene.features, scene.given, **scene.trusted_samples
    )
    rows = np.arange(len(scene.given))
    found = posterior.judge(scene.features, scene.given, reference_rows=rows)
    return arms_on(scene, posterior, found), chosen(posterior)


def arms_on(scene: Scene, posterior: LabelPosterior, found: Judgement) -> dict[str, Arm]:
    """The arms on what this posterior found of all samples."""
    one_hot = np.eye(scene.num_classes)[scene.given]
    weight = found.weight.astype(np.float64)
    shuffled = weight[np.random.default_rng([scene.seed, 0, 61]).permutation(len(weight))]
    soft = found.belief if posterior.open else one_hot
    pairs = {
        "weights": (one_hot, weight),
        "soft": (soft, np.ones(len(weight))),
        "relabel": _relabelled(found, one_hot, weight),
        "weights, permuted": (one_hot, shuffled),
    }
    return {
        name: Arm(targets_and_weights(*pair), None, not posterior.open)
        for name, pair in pairs.items()
    }


def chosen(posterior: LabelPosterior) -> str:
    """Where wrong labels look drawn from all classes alike, another one is sure or the label is noise."""
    return "relabel" if posterior.verdict.gate.unstructured else "soft"


def _relabelled(
    found: Judgement, one_hot: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where another class is sure, that class counts as the label, as much as it is sure."""
    sure = found.issue & (found.suggestion_probability > SURE)
    targets = np.where(sure[:, None], np.eye(one_hot.shape[1])[found.suggested], one_hot)
    return targets, np.where(sure, 2 * found.suggestion_probability - 1, weight)


def peer(name: str, scene: Scene) -> Arm:
    """One of `PEERS`; W-ERM needs trusted samples."""
    labels, classes = scene.given, scene.num_classes
    one_hot, alike = np.eye(classes)[labels], np.ones(len(labels))
    if name == "ERM":
        return Arm(targets_and_weights(one_hot, alike), None, True)
    if name == "right labels only":
        rows = np.flatnonzero(~scene.wrong)
        return Arm(targets_and_weights(one_hot[rows], alike[rows]), rows)
    if name == "cleanlab, flagged dropped":
        from label_noise.methods import logistic  # needs cleanlab

        rows = np.flatnonzero(~logistic(scene)["cleanlab"].issue)
        return Arm(targets_and_weights(one_hot[rows], alike[rows]), rows)
    if name == "W-ERM, features":
        assert scene.trusted is not None
        weights = cwerm.MetaWeightNet(seed=scene.seed).fit(scene.features, labels, *scene.trusted)
        return Arm(targets_and_weights(one_hot, np.asarray(weights, np.float64)))
    if name == "ELR":
        return Arm(early_learning(labels, classes))
    if name == "GCE":
        return Arm(generalised(labels))
    if name == "small loss, true rate":
        return Arm(small_loss(labels, float(scene.wrong.mean())))
    assert name == "forward correction, true T"
    transitions = np.zeros((classes, classes))
    np.add.at(transitions, (scene.truth, labels), 1)
    return Arm(forward_corrected(labels, transitions / transitions.sum(axis=1, keepdims=True)))
