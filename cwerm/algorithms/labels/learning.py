"""How the views, the transitions and the noise rate are learned on the reference set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from cwerm.algorithms.labels.gate import Gate, check_noise, tells_labels
from cwerm.algorithms.labels.transitions import (
    anchor_counts,
    anchor_rate,
    expected,
    normalised,
    posterior,
    shrunk,
)
from cwerm.algorithms.labels.views.reference import Reference
from cwerm.algorithms.labels.views.together import OfReference, Views
from cwerm.algorithms.labels.views.trusted import TrustedHead, best_power

__all__ = ["Learned", "learn"]

ROUNDS = 3
FIRST, MOSTLY = 0.4, 0.6

Targets = Float32[np.ndarray, "all classes"]
Joint = Float64[np.ndarray, "m classes"]
Numbers = Int64[np.ndarray, " m"]
Square = Float64[np.ndarray, "classes classes"]


class Learned(NamedTuple):
    """What was learned; `joint` and `unseen` are what the views say of the reference set [m, classes].

    The latter by networks that have not seen the sample. `priors` are the shares of the classes.
    """

    views: Views | None
    gate: Gate
    transitions: Square
    priors: Float64[np.ndarray, " classes"]
    noise_rate: float
    joint: Joint
    unseen: Joint


def learn(
    reference: Reference | None,
    labels: Numbers,
    known: Int64[np.ndarray, " t"],
    chances: Joint | None,
    classes: int,
    seed: int,
    threads: int = 1,
) -> Learned:
    """Fit the views to the given labels, then to what is believed of them, while that pays.

    `known` are the labels of the trusted samples, `chances` a user's own probabilities.
    """
    truth = np.eye(classes, dtype=np.float32)[np.concatenate([labels, known])]
    m, head = len(labels), None
    if len(known) and reference is not None:
        head = TrustedHead.fit(reference.vectors[m:], known, classes)

    def fit(targets: Targets) -> tuple[Views | None, OfReference, Square]:
        views, said = None, None
        if reference is not None:
            views = Views(reference, targets, seed, head, threads)
            said = views.of_reference(chances)
        else:
            assert chances is not None
            said = OfReference(chances, chances, chances, chances)
        return views, said, shrunk(anchor_counts(normalised(said.unseen[:m]), labels))

    now = views, said, transitions = fit(truth)
    informative = len(known) > 0 and tells_labels(normalised(said.unseen[m:]), known)
    gate = check_noise(said.predicted[:m], said.plain[:m], labels, informative)
    first = _rate(normalised(said.unseen[:m]), labels, transitions)[0]
    for _ in range(ROUNDS if gate.open and gate.mislabelled and views is not None else 0):
        before, score = now, _score(said.seen[:m], labels, transitions)
        targets = truth.copy()
        targets[:m] = posterior(normalised(said.seen[:m]), labels, transitions)
        now = views, said, transitions = fit(targets)
        if _score(said.seen[:m], labels, transitions) <= score:
            views, said, transitions = before
            break
    beliefs = normalised(said.unseen[:m])
    if len(known):
        beliefs = normalised(beliefs ** best_power(said.unseen[m:], known))
        transitions = shrunk(expected(beliefs, labels, transitions))
    rate, priors = _rate(beliefs, labels, transitions)
    if len(known) == 0:
        rate = _between(first, rate, gate)
    return Learned(views, gate, transitions, priors, rate, said.seen[:m], said.unseen[:m])


def _rate(
    beliefs: Joint, labels: Numbers, transitions: Square
) -> tuple[float, Float64[np.ndarray, " classes"]]:
    """The noise rate by the classes' shares, and these."""
    priors = posterior(beliefs, labels, transitions).mean(axis=0)
    return anchor_rate(transitions, priors), priors


def _between(first: float, last: float, gate: Gate) -> float:
    """The noise rate without trusted samples.

    The anchors of the first views, which are of given labels, show more noise than there is, those of the
    last, in which beliefs confirm themselves, less. Noise without structure has an estimate of its own.
    """
    if gate.unstructured and gate.mixture > MOSTLY * last:
        return (gate.mixture + last) / 2
    return FIRST * first + (1 - FIRST) * last


def _score(joint: Joint, labels: Numbers, transitions: Square) -> float:
    """The mean log-likelihood of the given labels, with beliefs about as sure as they may be."""
    beliefs = normalised(np.sqrt(joint))  # the views multiplied are too sure
    return float(np.log((beliefs * transitions[:, labels].T).sum(axis=1)).mean())
