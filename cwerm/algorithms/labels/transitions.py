"""How often a sample of one class is given the label of another: T[class, label].

Samples whose class is beyond doubt ("anchors", Liu & Tao 2016; Patrini et al. 2017) show it: among them,
what the label differs in is noise and not the overlap of classes. Anchors are chosen without a look at
their own labels, by beliefs that others' labels gave, so their labels are a fair sample.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.special import gammaln

__all__ = ["anchor_counts", "anchor_rate", "expected", "normalised", "posterior", "shrunk"]

SHARE = 0.2  # of the samples believed to be of a class, the surest, are its anchors
LEAST = 10
STEPS, STEP, LEAST_COUNT, ELEMENTS = 200, 1e-5, 0.5, 1 << 19
STRENGTHS = np.geomspace(0.5, 2000, 25)  # of priors, in samples


def normalised(values: Float[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    """Rows of sum 1."""
    return values / values.sum(axis=1, keepdims=True)


def anchor_counts(
    beliefs: Float[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    share: float = SHARE,
    least: int = LEAST,
) -> Float64[np.ndarray, "classes classes"]:
    """How many anchors of each class (row) carry each label (column).

    They are a share of the samples believed to be of the class, and at least so many where it has them.
    Of samples that are equally sure each counts alike, in fractions where there are more than places: an
    order of theirs, by label or as they came, would choose.
    """
    classes = beliefs.shape[1]
    believed, surest = beliefs.argmax(axis=1), beliefs.max(axis=1)
    sizes = np.bincount(believed, minlength=classes)
    places = np.minimum(np.ceil(np.maximum(least, share * sizes)).astype(np.int64), sizes)
    order = np.lexsort((-surest, believed))
    last = np.minimum(np.cumsum(sizes) - sizes + np.maximum(places, 1) - 1, len(order) - 1)
    border = surest[order[last]][believed]  # how sure the last of its class's anchors is
    above, level = surest > border, surest == border
    left = places - np.bincount(believed[above], minlength=classes)
    fraction = left / np.maximum(np.bincount(believed[level], minlength=classes), 1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (believed, labels), above + level * fraction[believed])
    return counts


def shrunk(
    counts: Float64[np.ndarray, "classes classes"],
) -> Float64[np.ndarray, "classes classes"]:
    """T from counts; where these say little, right as often as elsewhere and all others alike.

    How little is learned from the counts of all classes together (empirical Bayes): a beta prior on how
    often a label is wrong and a Dirichlet prior on which other it is, each with its likeliest strength. So
    noise without structure gets a T without structure, and pair noise its pairs.
    """
    classes = len(counts)
    others = ~np.eye(classes, dtype=bool)
    off = counts[others].reshape(classes, classes - 1)
    wrong, right = off.sum(axis=1), np.diag(counts)
    rate = (wrong.sum() + 0.5) / (counts.sum() + 1)
    pairs = np.stack([wrong, right], axis=1)
    mean = np.array([rate, 1 - rate])
    strength = max(STRENGTHS, key=lambda s: _evidence(pairs, s * mean))
    alike = np.full(classes - 1, 1 / (classes - 1))
    alikeness = max(STRENGTHS, key=lambda s: _evidence(off, s * alike))
    rates = (wrong + strength * rate) / (wrong + right + strength)
    which = (off + alikeness * alike) / (wrong + alikeness)[:, None]
    transitions = np.diag(1 - rates)
    transitions[others] = (rates[:, None] * which).ravel()
    return transitions


def expected(
    beliefs: Float64[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    start: Float64[np.ndarray, "classes classes"],
) -> Float64[np.ndarray, "classes classes"]:
    """How many samples of each class (row) are expected to carry each label, at the likeliest T.

    By EM, given calibrated beliefs p(class | features) that do not know the labels (Patrini et al. 2017).
    With beliefs too soft or too sharp it finds far too much or too little noise.
    """
    few = slice(
        0, max(1000, ELEMENTS // beliefs.shape[1])
    )  # as good as all, and as they come by chance
    beliefs, labels = beliefs[few], labels[few]
    one_hot, transitions = np.eye(beliefs.shape[1])[labels], start
    for _ in range(STEPS):
        counts = posterior(beliefs, labels, transitions).T @ one_hot
        updated = normalised(counts + LEAST_COUNT * start)
        if np.abs(updated - transitions).max() < STEP:
            break
        transitions = updated
    return counts


def _evidence(
    counts: Float64[np.ndarray, "rows kinds"], prior: Float64[np.ndarray, " kinds"]
) -> float:
    """The log-likelihood of rows of counts with proportions drawn from a Dirichlet prior."""
    rows, kinds = np.nonzero(counts)
    seen, believed = counts[rows, kinds], prior[kinds]
    total, strength = counts.sum(axis=1), prior.sum()
    cells = (gammaln(seen + believed) - gammaln(believed)).sum()
    return float(cells - (gammaln(total + strength) - gammaln(strength)).sum())


def posterior(
    joint: Float64[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    transitions: Float64[np.ndarray, "classes classes"],
    stranger: float = 0.0,
) -> Float64[np.ndarray, "n classes"]:
    """p(class | features, given label), by Bayes' rule, from how likely each class is by the features.

    `stranger` is how likely it is that a sample is of no class: rows of `joint` that are not much larger
    have a sum below 1.
    """
    likely = joint * transitions[:, labels].T
    return likely / (likely.sum(axis=1, keepdims=True) + stranger)


def anchor_rate(
    transitions: Float64[np.ndarray, "classes classes"], priors: Float64[np.ndarray, " classes"]
) -> float:
    """The share of wrong labels, by the shares of the classes (not of the labels)."""
    return float(priors @ (1 - np.diag(transitions)))
