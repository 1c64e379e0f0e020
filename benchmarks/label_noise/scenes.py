"""One draw of samples with some labels made wrong, and a few trusted ones: what a method is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from cwerm.algorithms.noise.confusion import confuse_by_table, confusion_matrix, scale_confusions
from cwerm.algorithms.noise.corrupt import corrupt_labels, long_tail
from cwerm.algorithms.noise.instance import confuse_by_instance
from cwerm.algorithms.noise.open_set import draw_replacements
from cwerm.data.confusions import read_confusions
from label_noise.sources import Pool

__all__ = ["CELLS", "DETECTION", "Cell", "Scene", "draw_scene"]

TABLES = Path(__file__).parent / "tables"
SIZE = 5000
WEAK_DIMENSIONS = 10  # principal components that the classifier of instance noise sees
CLUSTER_DIMENSIONS = 32
LEAST_OF_A_CLUSTER = 5  # trusted samples and given ones must both have its class
SUBSET, FLAT = 31, 32


@dataclass(frozen=True)
class Cell:
    """Which labels are made wrong, at which rate, on which classes."""

    noise: str = "none"
    rate: float = 0.0
    imbalance: float = 1.0
    clusters: int = 0


CELLS = {
    "clean": Cell(),
    "symmetric 10": Cell("symmetric", 0.1),
    "symmetric 20": Cell("symmetric", 0.2),
    "symmetric 40": Cell("symmetric", 0.4),
    "symmetric 60": Cell("symmetric", 0.6),
    "symmetric 80": Cell("symmetric", 0.8),
    "pair 40": Cell("flip", 0.4),
    "instance 20": Cell("instance", 0.2),
    "instance 40": Cell("instance", 0.4),
    "annotators": Cell("annotators"),
    "annotators 15": Cell("annotators", 0.15),
    "annotators 40": Cell("annotators", 0.4),
    "open set 20": Cell("open_set", 0.2),
    "tail, symmetric 20": Cell("symmetric", 0.2, imbalance=50.0),
    "100 classes, symmetric 20": Cell("symmetric", 0.2, clusters=100),
    "tail, clean": Cell(imbalance=50.0),
    "100 classes, clean": Cell(clusters=100),
}
DETECTION = [
    *("clean", "symmetric 10", "symmetric 20", "symmetric 40", "pair 40"),
    *("instance 20", "instance 40", "annotators", "open set 20"),
    *("tail, symmetric 20", "100 classes, symmetric 20"),
]


class Scene(NamedTuple):
    """What a method sees, and what it is measured by.

    Features float32 [n, d], given labels int64 [n], the right ones (of an image of another source its
    given one, though that is wrong), which are wrong, trusted features and labels, or None, whether
    images of another source are among them, the seed, and where the samples stand in the pool.
    """

    features: np.ndarray
    given: np.ndarray
    truth: np.ndarray
    wrong: np.ndarray
    num_classes: int
    trusted: tuple[np.ndarray, np.ndarray] | None
    strangers: bool
    seed: int
    rows: np.ndarray

    @property
    def trusted_samples(self) -> dict[str, np.ndarray]:
        """The trusted samples as cwerm takes them; nothing where there are none."""
        return dict(zip(("trusted_features", "trusted_labels"), self.trusted or (), strict=False))


def draw_scene(
    pool: Pool,
    data: str,
    cell: Cell,
    seed: int,
    trusted: tuple[int, ...] = (),
    size: int = SIZE,
    held_out: int = 10,
) -> Scene:
    """The draw of this seed.

    `trusted` samples a class, the tuple repeated over the classes, are right and given apart; none if
    it is empty. As many as `held_out` a class are left out of the rest all the same, so that the rest is
    the same with and without them.
    """
    labels, num_classes = pool.labels, len(pool.names)
    if cell.clusters:
        labels, num_classes = _clusters(pool, cell.clusters, seed), cell.clusters
        held_out = 2
    order = np.random.default_rng([seed, 0, SUBSET]).permutation(len(labels))
    apart = _first_of_each(order, labels, num_classes, held_out)
    counts = np.resize(trusted, num_classes) if trusted else np.zeros(num_classes, int)
    known = [rows[:count] for rows, count in zip(apart, counts, strict=True)]
    rest = order[~np.isin(order, np.concatenate(apart))]
    if cell.imbalance > 1:
        rest = rest[long_tail(labels[rest], cell.imbalance, seed)]
    else:  # every class keeps two, whatever the draw
        two = np.concatenate(_first_of_each(rest, labels, num_classes, 2))
        rest = np.concatenate([two, rest[~np.isin(rest, two)]])[:size]
    rows = np.sort(rest)
    features, truth = pool.features[rows], labels[rows]
    given = _given(features, truth, pool, data, cell, num_classes, seed)
    wrong = given != truth
    if cell.noise == "open_set":
        replaced, source = draw_replacements(len(rows), len(pool.strangers), cell.rate, seed)
        features[replaced] = pool.strangers[source]
        wrong[replaced] = True
    picked = np.concatenate(known)
    return Scene(
        features,
        given,
        truth,
        wrong,
        num_classes,
        (pool.features[picked], labels[picked]) if trusted else None,
        cell.noise == "open_set",
        seed,
        rows,
    )


def _first_of_each(
    order: np.ndarray, labels: np.ndarray, num_classes: int, count: int
) -> list[np.ndarray]:
    return [order[labels[order] == label][:count] for label in range(num_classes)]


def _given(
    features: np.ndarray,
    truth: np.ndarray,
    pool: Pool,
    data: str,
    cell: Cell,
    num_classes: int,
    seed: int,
) -> np.ndarray:
    if cell.noise in ("none", "open_set"):
        return truth.copy()
    if cell.noise == "instance":
        return confuse_by_instance(truth, _weak_probabilities(features, truth), cell.rate, seed)
    if cell.noise == "annotators":
        own = None if data == "fashion" else str(TABLES / f"annotators_{data}.json")
        table = read_confusions("fashion_mnist", own)
        matrix = confusion_matrix(table, pool.names)
        if cell.rate:
            matrix = scale_confusions(matrix, truth, cell.rate)
        return confuse_by_table(truth, matrix, seed)
    return corrupt_labels(truth, cell.noise, cell.rate, num_classes, seed)


def _weak_probabilities(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    reduced = PCA(WEAK_DIMENSIONS, whiten=True, random_state=0).fit_transform(features)
    return LogisticRegression(max_iter=300).fit(reduced, truth).predict_proba(reduced)


def _clusters(pool: Pool, number: int, seed: int) -> np.ndarray:
    """Clusters of the pool, those of fewer than `LEAST_OF_A_CLUSTER` made up from the largest ones."""
    dimensions = min(CLUSTER_DIMENSIONS, pool.features.shape[1])
    reduced = PCA(dimensions, random_state=seed).fit_transform(pool.features)
    found = KMeans(number, n_init=1, random_state=seed).fit(reduced)
    labels = found.labels_.astype(np.int64)
    generator = np.random.default_rng([seed, 0, FLAT])
    for small in np.flatnonzero(np.bincount(labels, minlength=number) < LEAST_OF_A_CLUSTER):
        large = np.bincount(labels, minlength=number).argmax()
        labels[labels == small] = large
        members = reduced[labels == large]
        side = members @ generator.normal(size=members.shape[1])
        labels[np.flatnonzero(labels == large)[side < np.median(side)]] = small
    return labels
