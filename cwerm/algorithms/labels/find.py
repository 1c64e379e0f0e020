"""`find_label_errors`: which labels of a data set look wrong, with nothing known clean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array, issparse, vstack

from cwerm.algorithms.class_labels import Labels, as_labels, join_labels
from cwerm.algorithms.inputs import Given, as_features, check_whole_number
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.labels.posterior import LabelPosterior
from cwerm.algorithms.labels.probabilities import as_probabilities
from cwerm.algorithms.labels.result import LabelErrors
from cwerm.algorithms.labels.views.marks import row_marks
from cwerm.algorithms.labels.views.neighbours import first_seen

__all__ = ["find_label_errors", "reference_rows"]

REFERENCE = 20_000
LEAST_OF_CLASS = 50
ROWS, ELEMENTS = 8192, 1 << 20  # judged at a time, and beliefs of these
DENSE_CLASSES, KEPT_CLASSES = 1000, 20  # with more classes, the most probable ones are kept


def find_label_errors(
    features: Given = None,
    labels: Given = None,
    *,
    probabilities: Given = None,
    groups: Given = None,
    trusted_features: Given = None,
    trusted_labels: Given = None,
    seed: int = 0,
) -> LabelErrors:
    """Say of each label how probably it is right, and what it should be; nothing need be known clean.

    Args:
        features: [n, d], numbers that a backbone gave for each sample, or any others that tell classes apart.
        labels: [n], as given: strings, whole numbers or booleans, in a list, an array, a tensor or a pandas
            Series. At least two classes.
        probabilities: [n, classes], of each class by a model of your own that has not been trained on the
            sample (out of fold), columns in ascending order of the classes; with or without features.
        groups: [n], strings or whole numbers: samples of one group (shots of one thing) do not vouch for
            each other's labels. Near-duplicates are found without.
        trusted_features: [t, d], of samples whose labels are right; not among the others.
        trusted_labels: [t], theirs, of the same type as `labels`.
        seed: same seed, same result.

    Raises:
        ValueError: what can't be used, in one line.
    """
    check_whole_number("seed", seed, 0)
    if labels is None:
        raise ValueError("there are no labels: give one for each sample, labels=...")
    if features is None and probabilities is None:
        raise ValueError(
            "there is nothing to judge labels by: give features, probabilities or both"
        )
    vectors = None if features is None else as_features(features)
    known = as_labels(labels, None if vectors is None else len(vectors))
    if len(known.classes) < 2:
        raise ValueError(
            f"all labels are {known.classes[0].item()!r}: give labels of two classes or more"
        )
    chances = None
    if probabilities is not None:
        chances = as_probabilities(probabilities, len(known.codes), len(known.classes))
    own_groups = None
    if groups is not None:
        own_groups = as_labels(groups, len(known.codes), "groups", "labels").codes
        if len(known.codes) > 1 and not own_groups.any():
            raise ValueError(
                "all samples are of one group, so that none is left to vouch for another: "
                "give a group to the shots of one thing alone"
            )
    trusted, trusted_codes = _trusted(trusted_features, trusted_labels, vectors, known)
    rows = reference_rows(known.codes, seed)
    posterior = LabelPosterior(len(known.classes), seed).fit(
        None if vectors is None else vectors[rows],
        known.codes[rows],
        probabilities=None if chances is None else chances[rows],
        trusted_features=trusted,
        trusted_labels=trusted_codes,
        groups=None if own_groups is None else own_groups[rows],
    )
    judged = _judge(posterior, vectors, known.codes, chances, rows, own_groups)
    return LabelErrors.of(posterior, judged, known, _duplicate_groups(judged.duplicate_of, vectors))


def _trusted(
    features: Given, labels: Given, vectors: Float[np.ndarray, "n d"] | None, known: Labels
) -> tuple[Float[np.ndarray, "t e"] | None, Int64[np.ndarray, " t"] | None]:
    """Trusted samples with their labels as numbers of the classes."""
    if features is None and labels is None:
        return None, None
    if features is None or labels is None:
        missing = "trusted_features" if features is None else "trusted_labels"
        raise ValueError(f"trusted samples need features and labels: give {missing}, too")
    if vectors is None:
        raise ValueError("trusted samples need features of all samples: give features, too")
    trusted = as_features(features, "trusted_features")
    theirs = as_labels(labels, len(trusted), "trusted_labels", "trusted_features")
    joint, codes = join_labels(known, theirs, "labels", "trusted_labels")
    unknown = np.setdiff1d(theirs.classes, known.classes)
    if len(joint.classes) > len(known.classes):
        raise ValueError(
            f"trusted_labels name class {unknown[0].item()!r}, which no label has; "
            "remove those samples"
        )
    return trusted, codes.codes


def reference_rows(codes: Int64[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " m"]:
    """Up to about 20,000 rows, drawn evenly, of each class at least 50 where it has them; ascending."""
    if len(codes) <= REFERENCE:
        return np.arange(len(codes))
    order = np.random.default_rng(seed).permutation(len(codes))
    sizes = np.bincount(codes)
    least = max(1, min(LEAST_OF_CLASS, REFERENCE // (2 * len(sizes))))
    wanted = np.maximum(np.minimum(sizes, least), sizes * REFERENCE // len(codes))
    by_class = order[np.argsort(codes[order], kind="stable")]
    place = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(by_class[place < np.repeat(wanted, sizes)])


def _judge(
    posterior: LabelPosterior,
    vectors: Float[np.ndarray, "n d"] | None,
    codes: Int64[np.ndarray, " n"],
    chances: Float[np.ndarray, "n classes"] | None,
    rows: Int64[np.ndarray, " m"],
    groups: Int64[np.ndarray, " n"] | None,
) -> Judgement:
    place = np.full(len(codes), -1)
    place[rows] = np.arange(len(rows))
    parts, size = [], max(256, min(ROWS, ELEMENTS // posterior.num_classes))
    for start in range(0, len(codes), size):
        block = slice(start, start + size)
        parts.append(
            posterior.judge(
                None if vectors is None else vectors[block],
                codes[block],
                probabilities=None if chances is None else chances[block],
                reference_rows=place[block],
                groups=None if groups is None else groups[block],
            )
        )
        if posterior.num_classes > DENSE_CLASSES:
            parts[-1] = parts[-1]._replace(belief=_largest(parts[-1].belief))
    columns = dict(zip(Judgement._fields, zip(*parts, strict=True), strict=True))
    belief = columns.pop("belief")
    together = vstack(belief, "csr") if issparse(belief[0]) else np.concatenate(belief)
    return Judgement(belief=together, **{name: np.concatenate(c) for name, c in columns.items()})


def _largest(belief: Float32[np.ndarray, "n classes"]) -> csr_array:
    """The most probable classes of each sample alone, in a sparse matrix."""
    kept = np.sort(np.argpartition(-belief, KEPT_CLASSES, axis=1)[:, :KEPT_CLASSES], axis=1)
    values = np.take_along_axis(belief, kept, axis=1)
    starts = np.arange(0, kept.size + 1, KEPT_CLASSES)
    return csr_array((values.ravel(), kept.ravel(), starts), shape=belief.shape)


def _duplicate_groups(
    of_reference: Int64[np.ndarray, " n"], vectors: Float[np.ndarray, "n d"] | None
) -> Int64[np.ndarray, " n"]:
    """Groups over all samples: near-duplicates in the reference set, and elsewhere equal features."""
    alone = np.flatnonzero(of_reference < 0)
    group = of_reference.copy()
    if vectors is None:
        return np.arange(len(group))
    if len(alone):
        marks = np.unique(row_marks(vectors)[alone], return_inverse=True)[1]
        group[alone] = of_reference.max() + 1 + marks
    return first_seen(group)
