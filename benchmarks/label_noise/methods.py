"""The methods that the study compares, all on the same features: families of rows that share their work.

With nothing clean, `auto` and `postAll` take 10 samples a class as they are for trusted ones, as cwerm's
first version did.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from cleanlab.count import compute_confident_joint, estimate_joint
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from torch import Tensor
from torch.nn import functional

import cwerm
from label_noise.figures import Verdict
from label_noise.former import former_auto, former_on_all
from label_noise.heads import folds, linear_head, logits, mean_over_epochs, standardised
from label_noise.scenes import Scene

__all__ = ["FAMILIES", "NOTHING_CLEAN", "WITH_TRUSTED"]

NEIGHBORS, VOTERS, FOLDS = 20, 10, 5
DECAYS = (1e-1, 1e-2, 1e-3, 1e-4)
BLOCK = 2000
SELF_TRUST = 10


Family = Callable[[Scene], dict[str, Verdict]]


def neighbors(scene: Scene) -> dict[str, Verdict]:
    """Shares of the labels of the nearest neighbours by cosine, the sample itself left out."""
    nearest = _nearest(scene.features, NEIGHBORS)
    shares = _shares(nearest, scene)
    votes = _shares(nearest[:, :VOTERS], scene)
    return {
        "20-NN, share": _by_probability(shares, scene),
        "20-NN, margin": _by_margin(shares, scene),
        "SimiFeat, votes": _by_probability(votes, scene),
    }


def logistic(scene: Scene) -> dict[str, Verdict]:
    """Logistic regression in five folds, its decay by the first fold's likelihood; and cleanlab on it."""
    vectors = standardised(scene.features)
    targets = torch.eye(scene.num_classes)[torch.from_numpy(scene.given)]
    parts = folds(scene.given, FOLDS, scene.seed)
    held_out, rest = parts[0]
    best, decay = torch.tensor(torch.inf), DECAYS[0]
    outputs = torch.empty(len(vectors), scene.num_classes)
    for tried in DECAYS:
        found = logits(linear_head(vectors[rest], targets[rest], tried), vectors[held_out])
        loss = functional.cross_entropy(found, targets[held_out])
        if loss >= best:  # less decay is worse from here on
            break
        best, decay, outputs[held_out] = loss, tried, found
    for held_out, rest in parts[1:]:
        head = linear_head(vectors[rest], targets[rest], decay)
        outputs[held_out] = logits(head, vectors[held_out])
    probabilities = outputs.double().softmax(1).numpy()
    return {
        "logistic regression": _by_probability(probabilities, scene),
        "logistic regression, margin": _by_margin(probabilities, scene),
        **_cleanlab(probabilities, scene),
    }


def _cleanlab(probabilities: np.ndarray, scene: Scene) -> dict[str, Verdict]:
    joint = compute_confident_joint(scene.given, probabilities)
    rate = float(1 - np.trace(estimate_joint(scene.given, probabilities, confident_joint=joint)))
    issue = find_label_issues(scene.given, probabilities, confident_joint=joint, n_jobs=1)
    suggested = probabilities.argmax(axis=1)
    quality = get_label_quality_scores(scene.given, probabilities)
    adjusted = get_label_quality_scores(scene.given, probabilities, adjust_pred_probs=True)
    return {
        "cleanlab": Verdict(quality, suggested, issue, rate),
        "cleanlab, adjusted": Verdict(adjusted, suggested, issue, rate),
    }


def in_sample(scene: Scene) -> dict[str, Verdict]:
    """A network's probabilities of what it learns from, averaged over its epochs."""
    vectors = standardised(scene.features)
    mean = mean_over_epochs(vectors, scene.given, scene.num_classes, scene.seed)
    return {"in sample over epochs, margin": _by_margin(mean, scene)}


def head(scene: Scene) -> dict[str, Verdict]:
    """A head on the trusted samples alone."""
    assert scene.trusted is not None
    features, labels = scene.trusted
    both = standardised(np.concatenate([scene.features, features]))
    targets = torch.eye(scene.num_classes)[torch.from_numpy(labels)]
    made = linear_head(both[len(scene.given) :], targets)
    probabilities = logits(made, both[: len(scene.given)]).double().softmax(1).numpy()
    return {"head on the trusted": _by_probability(probabilities, scene)}


def auto(scene: Scene) -> dict[str, Verdict]:
    """The first version's weights."""
    fitted = former_auto(*_with_trusted(scene), scene.num_classes, scene.seed)
    verdict = _by_probability(fitted.belief, scene)
    opened = fitted.noise_rate > 0
    return {"auto, first version": verdict._replace(noise_rate=fitted.noise_rate, opened=opened)}


def post_all(scene: Scene) -> dict[str, Verdict]:
    """The same posterior on all samples."""
    fitted = former_on_all(*_with_trusted(scene), scene.num_classes, scene.seed)
    verdict = _by_probability(fitted.belief, scene)
    return {"postAll": verdict._replace(noise_rate=fitted.noise_rate)}


def ours(scene: Scene) -> dict[str, Verdict]:
    """`cwerm.find_label_errors`."""
    found = cwerm.find_label_errors(
        scene.features, scene.given, **scene.trusted_samples, seed=scene.seed
    )
    verdict = Verdict(
        np.asarray(found.quality, np.float64),
        np.asarray(found.suggested_label),
        np.asarray(found.is_issue),
        float(found.noise_rate),
        (float(found.noise_rate_interval[0]), float(found.noise_rate_interval[1])),
        bool((np.asarray(found.weight) != 1).any()),
    )
    return {"cwerm": verdict}


FAMILIES: dict[str, Family] = {
    "neighbors": neighbors,
    "logistic": logistic,
    "in_sample": in_sample,
    "head": head,
    "auto": auto,
    "post_all": post_all,
    "ours": ours,
}
NOTHING_CLEAN = ["neighbors", "logistic", "in_sample", "auto", "post_all", "ours"]
WITH_TRUSTED = ["head", "auto", "post_all", "ours"]


def _with_trusted(scene: Scene) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The samples and the trusted ones; where there are none, some are taken out and trusted as they are."""
    if scene.trusted is not None:
        return scene.features, scene.given, scene.trusted
    order = np.random.default_rng([scene.seed, 0, 43]).permutation(len(scene.given))
    rows = [order[scene.given[order] == c][:SELF_TRUST] for c in range(scene.num_classes)]
    picked = np.concatenate(rows)
    return scene.features, scene.given, (scene.features[picked], scene.given[picked])


def _nearest(features: np.ndarray, k: int) -> np.ndarray:
    vectors = functional.normalize(torch.from_numpy(features), dim=1)
    found: list[Tensor] = []
    for start in range(0, len(vectors), BLOCK):
        likeness = vectors[start : start + BLOCK] @ vectors.T
        rows = torch.arange(len(likeness))
        likeness[rows, start + rows] = -2
        found.append(likeness.topk(k, dim=1).indices)
    return torch.cat(found).numpy()


def _shares(nearest: np.ndarray, scene: Scene) -> np.ndarray:
    return np.eye(scene.num_classes)[scene.given[nearest]].mean(axis=1)


def _by_probability(probabilities: np.ndarray, scene: Scene) -> Verdict:
    rows = np.arange(len(scene.given))
    suggested = probabilities.argmax(axis=1)
    return Verdict(probabilities[rows, scene.given], suggested, suggested != scene.given)


def _by_margin(probabilities: np.ndarray, scene: Scene) -> Verdict:
    """By the logarithm of the label's probability less that of the best other class."""
    logarithms = np.log(np.maximum(probabilities, 1e-3 / scene.num_classes))
    rows = np.arange(len(scene.given))
    others = logarithms.copy()
    others[rows, scene.given] = -np.inf
    margin = logarithms[rows, scene.given] - others.max(axis=1)
    return _by_probability(probabilities, scene)._replace(quality=margin)
