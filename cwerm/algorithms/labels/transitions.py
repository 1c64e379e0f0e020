"""How often a sample of one class is given the label of another: T[class, label].

Samples whose class is beyond doubt ("anchors", Liu & Tao 2016; Patrini et al. 2017) show it: among them,
what the label differs in is noise and not the overlap of classes. Anchors are chosen without a look at
their own labels, by beliefs that others' labels gave, so their labels are a fair sample.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64

__all__ = ["anchor_counts", "anchor_rate", "normalised", "posterior", "shrunk"]

SHARE = 0.2  # of the samples believed to be of a class, the surest, are its anchors
LEAST = 10
PRIOR = 2.0  # pseudo-counts of a class


def normalised(values: Float[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    """Rows of sum 1."""
    return values / values.sum(axis=1, keepdims=True)


def anchor_counts(
    beliefs: Float[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    share: float = SHARE,
) -> Float64[np.ndarray, "classes classes"]:
    """How many anchors of each class (row) carry each label (column)."""
    classes = beliefs.shape[1]
    believed, surest = beliefs.argmax(axis=1), beliefs.max(axis=1)
    order = np.lexsort((-surest, believed))
    sizes = np.bincount(believed, minlength=classes)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = order[place < np.maximum(LEAST, share * sizes)[believed[order]]]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (believed[taken], labels[taken]), 1)
    return counts


def shrunk(
    counts: Float64[np.ndarray, "classes classes"],
) -> Float64[np.ndarray, "classes classes"]:
    """T from counts; where these say little, right as often as elsewhere and all others alike."""
    classes = len(counts)
    rate = (counts.sum() - np.trace(counts) + 0.5) / (counts.sum() + 1)
    prior = np.full(counts.shape, rate / (classes - 1))
    np.fill_diagonal(prior, 1 - rate)
    return normalised(counts + PRIOR * prior)


def posterior(
    beliefs: Float64[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    transitions: Float64[np.ndarray, "classes classes"],
) -> Float64[np.ndarray, "n classes"]:
    """p(class | features, given label), by Bayes' rule."""
    return normalised(beliefs * transitions[:, labels].T)


def anchor_rate(
    transitions: Float64[np.ndarray, "classes classes"], priors: Float64[np.ndarray, " classes"]
) -> float:
    """The share of wrong labels, by the shares of the classes (not of the labels)."""
    return float(priors @ (1 - np.diag(transitions)))
