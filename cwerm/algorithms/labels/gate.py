"""Are there wrong labels at all? Told from overlapping classes, which look much alike.

Four signs, each of which opens the gate:

- noise without structure: the given labels are more likely under held-out predictions mixed with a share
  of labels drawn anew than under any sharper or softer version of the predictions. Overlap needs no such
  share;
- noise among the certain: of samples believed to be of one class with over 99%, more carry another label than
  overlap leaves there;
- noise with structure: of each class, the samples that are surest carry other labels, more than chance and
  overlap (which fades among the surest: the slope from less sure ones is taken off) explain;
- strangers: samples of which the views agree on no class, with labels that look drawn at random.

Of small classes the views know little and contradict many right labels, so there the first and the third
sign must show more. Features that tell nothing of the labels keep it closed.

A closed gate says that there are none where the third sign, with what chance may hide of it, stays below what
opens it. Where it does not, there are too few samples to tell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from cwerm.algorithms.labels.transitions import anchor_counts, normalised

__all__ = ["Gate", "check_noise", "mixture_rate", "tells_labels"]

SHARPNESS = np.geomspace(0.4, 3, 25)
RATES = np.concatenate([[0], np.geomspace(0.005, 0.9, 40)])
MIXTURE_EVIDENCE = 8.0  # nats
LEAST_MIXTURE = 0.015
STRUCTURE = 0.047  # more than a network that was never trained shows on clean labels
# by `Gate.ignorance`: more than right labels show in 100 classes of 12, less than 20% of wrong ones do
MIXTURE_OF_FEW, STRUCTURE_OF_FEW = 1.7, 5.3
DEVIATIONS = 2.33  # 1%
SURE, LESS_SURE, SLOPE = 0.2, 0.5, 0.5
CERTAIN, LEAST_CERTAIN, CONTRADICTED = (
    0.99,
    100,
    0.035,
)  # clean labels show up to 3%, of images that look like another class
STRANGE = 0.05  # of how likely the likeliest class of a usual sample is
STRANGERS, AGREEING = 0.03, 0.35


class Gate(NamedTuple):
    """What was seen; `open` says that there are wrong labels."""

    open: bool
    informative: bool
    mixture: float
    evidence: float
    structure: float
    structure_error: float
    contradicted: float
    strangers: float
    ignorance: float
    """The share of labels that the views contradict, by the mean number of samples a class."""

    @property
    def mislabelled(self) -> bool:
        """Whether there are wrong labels among samples that are of a class."""
        return (
            self.unstructured
            or self.structure - DEVIATIONS * self.structure_error > self.least_structure
            or self.contradicted > CONTRADICTED
        )

    @property
    def least_structure(self) -> float:
        """The share of other labels among the surest that overlap does not explain."""
        return max(STRUCTURE, STRUCTURE_OF_FEW * self.ignorance)

    @property
    def undecided(self) -> bool:
        """Whether so few samples can't tell: by chance alone the surest may hide that share."""
        most = self.structure + DEVIATIONS * self.structure_error
        return self.informative and not self.open and most > self.least_structure

    @property
    def unstructured(self) -> bool:
        """Whether labels look drawn from all others alike."""
        least = max(LEAST_MIXTURE, MIXTURE_OF_FEW * self.ignorance)
        return self.evidence > MIXTURE_EVIDENCE and self.mixture > least


def check_noise(
    predicted: Float64[np.ndarray, "n classes"],
    joint: Float64[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    informative: bool = False,
) -> Gate:
    """Held-out predictions of the network, and what all views say, neither with a look at the own label.

    The features are `informative` where trusted samples show it, or these labels do.
    """
    beliefs = normalised(joint)
    informative = informative or tells_labels(beliefs, labels)
    mixture, evidence = mixture_rate(predicted, labels)
    sure, number = _other_label(beliefs, labels, SURE)
    less_sure, _ = _other_label(beliefs, labels, LESS_SURE)
    structure = sure - SLOPE * max(0.0, less_sure - sure)
    error = np.sqrt(max(sure, 1 / number) * (1 - min(sure, 1 - 1 / number)) / number)
    strangers = _strangers(joint, labels)
    seen = Gate(
        False,
        informative,
        mixture,
        evidence,
        structure,
        float(error),
        _contradicted(beliefs, labels),
        strangers,
        float((beliefs.argmax(axis=1) != labels).mean() * len(np.unique(labels)) / len(labels)),
    )
    return seen._replace(open=bool(informative and (seen.mislabelled or strangers > 0)))


def _contradicted(
    beliefs: Float64[np.ndarray, "n classes"], labels: Int64[np.ndarray, " n"]
) -> float:
    """The share of other labels, at least, among samples that are believed certain; 0 if these are few."""
    certain = beliefs.max(axis=1) > CERTAIN
    number = int(certain.sum())
    if number < LEAST_CERTAIN:
        return 0.0
    share = (beliefs.argmax(axis=1) != labels)[certain].mean()
    return float(max(0.0, share - DEVIATIONS * np.sqrt(share * (1 - share) / number)))


def _strangers(joint: Float64[np.ndarray, "n classes"], labels: Int64[np.ndarray, " n"]) -> float:
    """The share of samples that are of no class, 0 where it is no more than a few."""
    likeliest = joint.max(axis=1)
    strange = likeliest < STRANGE * np.median(likeliest)
    share = float(strange.mean())
    error = np.sqrt(share * (1 - share) / len(joint))
    if share - DEVIATIONS * error < STRANGERS:
        return 0.0
    agreeing = (joint.argmax(axis=1) == labels)[strange].mean()
    return share if agreeing < AGREEING else 0.0


def tells_labels(
    beliefs: Float64[np.ndarray, "n classes"], labels: Int64[np.ndarray, " n"]
) -> bool:
    """Whether the beliefs name the given label clearly more often than chance would."""
    n, classes = beliefs.shape
    believed = beliefs.argmax(axis=1)
    chance = (
        np.bincount(believed, minlength=classes) @ np.bincount(labels, minlength=classes) / n**2
    )
    hit = (believed == labels).mean()
    error = np.sqrt(max(chance * (1 - chance), 1e-12) / n)
    return bool(hit - chance > max(4 * error, 0.05 * (1 - chance)))


def mixture_rate(
    predicted: Float64[np.ndarray, "n classes"], labels: Int64[np.ndarray, " n"]
) -> tuple[float, float]:
    """The likeliest share of labels drawn from all other classes alike, and its evidence in nats."""
    n, classes = predicted.shape
    logits = np.log(predicted + 1e-9)
    plain, best, rate = -np.inf, -np.inf, 0.0
    for sharpness in SHARPNESS:
        given = normalised(np.exp(sharpness * logits))[np.arange(n), labels]
        mixed = np.outer(given, 1 - RATES) + np.outer(1 - given, RATES / (classes - 1))
        scores = np.log(mixed + 1e-12).sum(axis=0)
        plain = max(plain, scores[0])
        if scores.max() > best:
            best, rate = scores.max(), float(RATES[scores.argmax()])
    return rate, float(best - plain)


def _other_label(
    beliefs: Float64[np.ndarray, "n classes"], labels: Int64[np.ndarray, " n"], share: float
) -> tuple[float, int]:
    """The share of anchors with another label, classes weighed by what is believed of them; their number."""
    # a fifth is a fifth: ten of a class of 18 would reach to its borders, where right labels differ
    counts = anchor_counts(beliefs, labels, share, least=1)
    size = counts.sum(axis=1)
    weight = np.bincount(beliefs.argmax(axis=1), minlength=len(counts)) / len(beliefs)
    wrong = 1 - np.diag(counts) / np.maximum(size, 1)
    return float(weight @ wrong), int(size.sum())
