"""Results equal NumPy's in float64, whatever the features' type, offset and size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cwerm.algorithms.class_counts import allocate
from cwerm.algorithms.coreset import select_coreset
from cwerm.algorithms.labels import LabelPosterior
from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.algorithms.reweighting.metaweight import LearningToReweight, MetaWeightNet
from cwerm.algorithms.selection import method_names
from cwerm.algorithms.spreading.broadcast import broadcast_weights

N, D, CLASSES, SIZE = 600, 12, 3, 60
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, N)
BASE = RNG.normal(size=(N, D)) + 3 * np.eye(CLASSES, D)[LABELS]
IDS = np.sort(RNG.choice(N, 60, replace=False))
WEIGHTS = RNG.uniform(0.1, 1, 60)


def with_fill(value: float) -> np.ndarray:
    features = BASE.copy()
    features[77, 0] = value
    return features


CASES: dict[str, np.ndarray] = {
    "plain": BASE,
    "float32": BASE.astype(np.float32),
    "float16": BASE.astype(np.float16),
    "+ 1e6": BASE + 1e6,
    "+ 1e6 in float32": (BASE + 1e6).astype(np.float32),
    "+ 1e8": BASE + 1e8,
    "- 1e10": BASE - 1e10,
    "x 1e-30": BASE * 1e-30,
    "x 1e-30 in float32": (BASE * 1e-30).astype(np.float32),
    "x 1e20": BASE * 1e20,
    "x 1e28 in float32": (BASE * 1e28).astype(np.float32),
    "one fill value": with_fill(1e20),
    "one fill value in float32": with_fill(1e20).astype(np.float32),
    "large integers": (BASE * 1e6).astype(np.int64) + 10**12,
    "small integers": (BASE * 10).astype(np.int8),
    "Fortran": np.asfortranarray(BASE + 1e8),
}


def exact(features: np.ndarray) -> np.ndarray:
    return features.astype(np.longdouble)


def within_classes(features: np.ndarray, choose: Callable[..., Any]) -> np.ndarray:
    chosen = []
    for label, count in enumerate(allocate(np.bincount(LABELS), SIZE)):
        members = np.flatnonzero(label == LABELS)
        chosen += list(members[choose(exact(features)[members], count)])
    return np.sort(chosen)


def moderate(rows: np.ndarray, count: int) -> Any:
    distances = np.sqrt(((rows - np.median(rows, 0)) ** 2).sum(1))
    return np.argsort(np.abs(distances - np.median(distances)), kind="stable")[:count]


def k_center(rows: np.ndarray, count: int) -> list[int]:
    rows = rows - rows.mean(0)
    best, gaps, chosen = int(np.argmin((rows**2).sum(1))), np.full(len(rows), np.inf), []
    for _ in range(count):
        chosen.append(best)
        gaps = np.minimum(gaps, ((rows - rows[best]) ** 2).sum(1))
        gaps[best] = -np.inf
        best = int(np.argmax(gaps))
    return chosen


def herding(rows: np.ndarray, count: int) -> list[int]:
    rows = rows - rows.mean(0)
    total, free, chosen = 0 * rows[0], np.ones(len(rows), bool), []
    for _ in range(count):
        scores = ((total + rows) ** 2).sum(1)
        best = int(np.argmin(np.where(free, scores, np.inf)))
        total, free[best] = total + rows[best], False
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("reference", [moderate, k_center, herding], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES)
def test_selection(case: str, reference: Callable[..., Any]) -> None:
    features = CASES[case]
    found = select_coreset(features, LABELS, SIZE / N, reference.__name__)
    expected = within_classes(features, reference)
    if "fill" not in case or reference is moderate:
        np.testing.assert_array_equal(found, expected)
    elif reference is k_center:
        # which sample comes first is lost in rounding, also in NumPy's, but not how well they cover
        assert radius(features, found) < 1.3 * radius(features, expected)
    else:
        assert len(set(found.tolist())) == SIZE


def radius(features: np.ndarray, ids: np.ndarray) -> float:
    rows = exact(features)
    gaps = np.sqrt(((rows[:, None] - rows[ids][None]) ** 2).sum(-1))
    return float(np.where(LABELS[:, None] == LABELS[ids], gaps, np.inf).min(axis=1).max())


@pytest.mark.parametrize("case", CASES)
def test_neighbours(case: str) -> None:
    features = CASES[case]
    rows = exact(features)
    distances = np.sqrt(((rows[:, None] - rows[IDS][None]) ** 2).sum(-1))
    order = np.argsort(distances.astype(np.float32), axis=1, kind="stable")[:, :3]
    _, ids, found = broadcast_weights(features, LABELS, IDS, WEIGHTS, neighbors=3)
    np.testing.assert_array_equal(ids, IDS[order])
    np.testing.assert_allclose(found, np.take_along_axis(distances, order, 1), rtol=2e-7, atol=0)


def test_a_query_far_from_all_vectors() -> None:
    vectors = RNG.normal(size=(3000, 4))
    queries = vectors[:5] + np.array([1e25, 0, 0, 0])
    _, ids = NeighborIndex(vectors, np.arange(3000)).search(queries, 3)
    assert (np.diff(np.sort(ids)) > 0).all()


@pytest.mark.parametrize("value", [1e20, -3e25, 9.96921e36, 3.4e38, 1e39, np.inf])
@pytest.mark.parametrize("method", method_names())
def test_fill_values_are_refused_or_give_distinct_samples(value: float, method: str) -> None:
    features = with_fill(value)
    ratio = 1.0 if method == "all" else 0.1
    if abs(value) > 1e30:
        with pytest.raises(ValueError, match=r"^row 77 of the features ") as raised:
            select_coreset(features, LABELS, ratio, method)
        assert "\n" not in str(raised.value)
    else:
        assert len(set(select_coreset(features, LABELS, ratio, method).tolist())) == ratio * N


def test_k_means_of_a_fill_value_does_not_end_the_interpreter() -> None:
    program = (
        "import numpy as np, cwerm; y = np.arange(600) % 3; x = np.random.default_rng(0)"
        ".normal(size=(600, 12)).astype('f4'); x[7, 0] = 1e20\n"
        "print(len(set(cwerm.select_coreset(x, y, 0.1, 'k_means').tolist())))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "60\n")


@pytest.mark.parametrize("method", ["el2n", "grand", "margin", "forgetting"])
def test_an_offset_hardly_changes_what_a_head_ranks(method: str) -> None:
    plain = set(select_coreset(BASE, LABELS, 0.1, method).tolist())
    shifted = set(select_coreset(BASE + 1e8, LABELS, 0.1, method).tolist())
    assert len(plain & shifted) >= 57


@pytest.mark.parametrize("learner", [MetaWeightNet, LearningToReweight])
def test_an_offset_hardly_changes_learned_weights(learner: Any) -> None:
    def fit(features: np.ndarray) -> np.ndarray:
        method = learner(epochs=3, lr=0.01, device="cpu")
        return method.fit(features[:300], LABELS[:300], features[300:], LABELS[300:])

    np.testing.assert_allclose(fit(BASE + 1e8), fit(BASE), rtol=1e-3, atol=1e-3)


def test_an_offset_hardly_changes_the_posterior() -> None:
    def weights(features: np.ndarray) -> np.ndarray:
        return LabelPosterior(CLASSES).fit(features, LABELS).judge(features, LABELS).quality

    apart = np.abs(weights(BASE + 1e8) - weights(BASE))
    assert np.mean(apart > 1e-2) < 0.02, "a few, where neighbours are about equally far"


def test_weights_of_any_size() -> None:
    expected = broadcast_weights(BASE, LABELS, IDS, WEIGHTS)[0]
    for factor in (1e-50, 1e39, 1e-300):
        found = broadcast_weights(BASE, LABELS, IDS, WEIGHTS * factor)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_memory_maps_and_arrays_that_may_not_be_written(tmp_path: Any) -> None:
    expected = select_coreset(BASE + 1e8, LABELS, 0.1, "herding")
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, BASE.shape)
    mapped[:] = BASE + 1e8
    locked = BASE + 1e8
    locked.setflags(write=False)
    for features in (np.load(tmp_path / "x.npy", mmap_mode="r"), locked, (BASE + 1e8)[:, :]):
        np.testing.assert_array_equal(select_coreset(features, LABELS, 0.1, "herding"), expected)
