"""Coreset methods that look at more than one group of samples: neighbours' votes, and random projections."""

from __future__ import annotations

import math

import numpy as np
import pytest
from selection_reference import choose, make_data, reference_k_center

from cwerm.algorithms.coreset import select, select_coreset
from cwerm.algorithms.noise.corrupt import corrupt_labels
from cwerm.algorithms.selection import zcore

pytestmark = pytest.mark.usefixtures("on_one_thread")


def reference_margin(features: np.ndarray, labels: np.ndarray, row: int) -> float:
    """Votes of the ten nearest others for the sample's label less those for the best other one."""
    gaps = [(math.dist(features[row], other), i) for i, other in enumerate(features) if i != row]
    votes = [int(labels[i]) for _, i in sorted(gaps)[:10]]
    others = [votes.count(label) for label in set(votes) - {int(labels[row])}]
    return (votes.count(int(labels[row])) - max(others, default=0)) / 10


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_clean_first_covers_what_its_neighbours_do_not_outvote(share: float) -> None:
    features, labels = make_data(n=120)
    margins = np.array([reference_margin(features, labels, row) for row in range(120)])
    found = select(labels, round(share * 120), "clean_first", features=features)
    for label in range(3):
        members = np.flatnonzero(labels == label)
        count = int((labels[found] == label).sum())
        best = members[np.argsort(-margins[members], kind="stable")]
        kept = best[: max(count, (margins[members] >= 0).sum())]
        expected = kept[reference_k_center(features[kept], count)]
        assert sorted(expected.tolist()) == found[labels[found] == label].tolist()


def test_clean_first_takes_few_wrong_labels_where_coverage_takes_many() -> None:
    truth = np.repeat(np.arange(4), 150)
    drawn = np.random.default_rng(0).standard_normal((600, 8)) + 4 * np.eye(4, 8)[truth]
    features = drawn.astype(np.float32)
    labels = corrupt_labels(truth, "symmetric", 0.3, 4)

    def wrong(method: str) -> float:
        ids = select_coreset(features, labels, 0.1, method)
        return float((labels != truth)[ids].mean())

    assert wrong("clean_first") < 0.1
    assert wrong("k_center") > 0.3


def reference_zcore(features: np.ndarray, points: list[zcore.Draw]) -> list[float]:
    """A round and a sample at a time, as the paper says it."""
    scores = [0.0] * len(features)
    for dimensions, point in points:
        rows = features[:, dimensions].astype(float).tolist()

        def gap(row: list[float], other: list[float]) -> float:
            return sum(abs(x - y) for x, y in zip(row, other, strict=True))

        gaps = [gap(row, point.tolist()) for row in rows]
        best = gaps.index(min(gaps))
        scores[best] += 1
        others = sorted((gap(row, rows[best]), i) for i, row in enumerate(rows) if i != best)
        nearest = others[: zcore.REDUNDANT]
        if nearest[0][0] == 0:
            scores[nearest[0][1]] -= 1
            continue
        total = sum(distance**-4 for distance, _ in nearest)
        for distance, i in nearest:
            scores[i] -= distance**-4 / total
    return scores


@pytest.mark.parametrize("redundant", [5, 1000])
def test_zcore_scores_equal_their_reference(
    redundant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zcore, "REDUNDANT", redundant)
    features = make_data()[0][:60]
    features[7] = features[3]  # one is redundant by itself
    points = list(zcore.draws(features, 300, np.random.default_rng(0)))
    np.testing.assert_allclose(
        zcore.score(features, points), reference_zcore(features, points), atol=1e-9
    )


def test_zcore_draws_different_dimensions_between_their_ends() -> None:
    features = make_data()[0]
    features[:, 2] = 5  # constant
    drawn = list(zcore.draws(features, 2000, np.random.default_rng(0)))
    assert all(len(set(dimensions.tolist())) == 2 for dimensions, _ in drawn)
    for dimension in range(6):
        at = [p[d == dimension][0] for d, p in drawn if dimension in d]
        column = features[:, dimension].astype(float)
        expected = (column.min() + np.median(column) + column.max()) / 3
        spread = np.std(at) / math.sqrt(len(at)) + 1e-9
        assert abs(np.mean(at) - expected) < 5 * spread
        assert column.min() <= min(at)
        assert max(at) <= column.max()


def test_zcore_leaves_out_near_copies() -> None:
    generator = np.random.default_rng(0)
    spread_out = generator.uniform(-1, 1, (40, 4))
    copies = spread_out[0] + 1e-3 * generator.standard_normal((160, 4))
    features = np.concatenate([spread_out, copies]).astype(np.float32)
    chosen = choose("zcore", 40, features)
    assert sum(i >= 40 for i in chosen) < 16  # of 32 at random
