from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cwerm.algorithms.class_counts import allocate, coreset_size, draw_balanced
from cwerm.algorithms.coreset import class_medians, distances_to_centers, select, select_coreset
from cwerm.algorithms.selection import load_method, method_names


def make_data(n: int = 600, num_classes: int = 5, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.choice(num_classes, n, p=np.arange(1, num_classes + 1) / 15)
    features = generator.standard_normal((n, d)) + labels[:, None]
    return features.astype(np.float32), labels.astype(np.int32)


def reference_moderate(features: np.ndarray, labels: np.ndarray, counts: dict[int, int]) -> list:
    """The paper's section 4.1, a sample at a time."""
    chosen = []
    for label, count in counts.items():
        ids = [i for i in range(len(labels)) if labels[i] == label]
        columns = list(zip(*(features[i].tolist() for i in ids), strict=True))
        center = [np.float32(np.median(column)) for column in columns]
        distances = {i: np.float32(math.dist(features[i].tolist(), center)) for i in ids}
        median = np.median(np.array(list(distances.values()), np.float64))
        chosen += sorted(ids, key=lambda i: (abs(float(distances[i]) - median), i))[:count]
    return sorted(chosen)


def reference_allocation(sizes: list[int], total: int) -> list[int]:
    """Largest remainder in exact fractions, classes owed less than one served first."""
    counts = dict.fromkeys(range(len(sizes)), 0)
    rest = [c for c in counts if sizes[c]]
    while True:
        left, samples = total - sum(counts.values()), sum(sizes[c] for c in rest)
        owed = {c: Fraction(left * sizes[c], samples) for c in rest}
        small = [c for c in rest if owed[c] < 1]
        if not small:
            break
        counts |= dict.fromkeys(small, 1)
        rest = [c for c in rest if c not in small]
    counts |= {c: math.floor(owed[c]) for c in rest}
    by_remainder = sorted(rest, key=lambda c: (math.floor(owed[c]) - owed[c], c))
    for c in by_remainder[: total - sum(counts.values())]:
        counts[c] += 1
    return list(counts.values())


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=12), st.floats(0.001, 1))
def test_allocate(sizes: list[int], ratio: float) -> None:
    n = sum(sizes)
    total = round(ratio * n)
    assume(total >= max(1, sum(size > 0 for size in sizes)))
    counts = allocate(np.array(sizes), coreset_size(n, ratio))
    assert counts.sum() == total
    assert all(min(1, size) <= count <= size for size, count in zip(sizes, counts, strict=True))
    if all(total * size >= n for size in sizes):
        for size, count in zip(sizes, counts, strict=True):
            assert abs(count - Fraction(total * size, n)) < 1
    assert counts.tolist() == reference_allocation(sizes, total)


def test_allocate_does_not_lose_samples_on_cifar100() -> None:
    counts = allocate(np.full(100, 500), 500)
    assert counts.tolist() == [5] * 100


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_ratio_outside_its_range(ratio: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        coreset_size(20, ratio)


def test_sizes_that_do_not_work_name_the_ratio_that_does() -> None:
    sizes = np.array([500] * 10)
    with pytest.raises(ValueError, match=r"use at least 0\.002$"):
        allocate(sizes, 5)
    assert allocate(sizes, 10).tolist() == [1] * 10
    for scope in ("class", "global"):
        with pytest.raises(ValueError, match="a coreset of 11 is more than the 10 samples"):
            select(np.arange(10) % 2, 11, "random", scope)
    with pytest.raises(ValueError, match=r"is no sample; use at least 0\.01$"):
        coreset_size(100, 0.001)


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.37, 1.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_moderate_equals_the_paper(ratio: float, dtype: type) -> None:
    features, labels = make_data()
    features = features.astype(dtype)
    ids = select_coreset(features, labels, ratio)
    counts = dict(enumerate(reference_allocation(np.bincount(labels).tolist(), round(ratio * 600))))
    assert ids.tolist() == reference_moderate(features, labels, counts)
    assert ids.dtype == np.int64
    assert len(ids) == round(ratio * 600)


def test_moderate_ties_go_to_the_lowest_id() -> None:
    features = np.zeros((40, 3), np.float32)
    labels = np.arange(40) % 2
    assert select_coreset(features, labels, 0.2).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_moderate_global_is_nearest_to_the_median_of_all_distances() -> None:
    features, labels = make_data()
    centers = np.stack([np.median(features[labels == c], axis=0) for c in range(5)])
    distances = np.linalg.norm(features - centers[labels], axis=1)
    gaps = np.abs(distances - np.median(distances))
    chosen = select_coreset(features, labels, 0.05, scope="global")
    assert len(chosen) == 30
    left_out = np.setdiff1d(np.arange(600), chosen)
    assert gaps[chosen].max() < gaps[left_out].min() + 1e-6


@pytest.mark.parametrize("scope", ["class", "global"])
def test_random_sees_labels_and_seed_only(scope: str) -> None:
    features, labels = make_data()
    first = select_coreset(features, labels, 0.1, "random", scope, seed=3)
    again = select_coreset(features[::-1], labels, 0.1, "random", scope, seed=3)
    other = select_coreset(features, labels, 0.1, "random", scope, seed=4)
    assert first.tolist() == again.tolist() == sorted(set(first.tolist()))
    assert len(first) == len(other) == 60
    assert first.tolist() != other.tolist()
    assert first.tolist() == select(labels, 60, "random", scope, seed=3).tolist()


def test_random_is_uniform() -> None:
    labels = np.arange(40) % 2
    for scope in ("class", "global"):
        drawn = [select(labels, 10, "random", scope, seed) for seed in range(2000)]
        frequency = np.bincount(np.concatenate(drawn), minlength=40) / 2000
        # five standard deviations of a binomial share
        assert np.abs(frequency - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 2000)


def test_select_from_streamed_distances_equals_select_coreset() -> None:
    features, labels = make_data()
    centers = class_medians(features, labels)
    parts = np.array_split(np.arange(600), 7)
    distances = [distances_to_centers(features[rows], labels[rows], centers) for rows in parts]
    for scope in ("class", "global"):
        ids = select(labels, 60, "moderate", scope, distances=np.concatenate(distances))
        assert ids.tolist() == select_coreset(features, labels, 0.1, scope=scope).tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_distances_do_not_depend_on_the_batch(d: int, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((n, d)).astype(np.float32) + 100
    centers = generator.standard_normal((2, d)).astype(np.float32) + 100
    labels = generator.integers(0, 2, n)
    together = distances_to_centers(features, labels, centers)
    alone = [distances_to_centers(features[[i]], labels[[i]], centers)[0] for i in range(n)]
    np.testing.assert_array_equal(together, alone)
    exact = [math.dist(features[i].tolist(), centers[labels[i]].tolist()) for i in range(n)]
    np.testing.assert_array_equal(together, np.array(exact).astype(np.float32))


def test_class_medians_of_a_class_without_samples() -> None:
    medians = class_medians(np.array([[1.0], [2.0], [5.0]], np.float32), np.array([0, 0, 2]))
    np.testing.assert_array_equal(medians, [[1.5], [np.nan], [5.0]])


def test_a_class_number_without_samples_gets_none() -> None:
    features, labels = make_data()
    assert len(select_coreset(features, labels * 2, 0.05)) == 30


def test_unknown_names() -> None:
    labels = np.arange(10) % 2
    with pytest.raises(ValueError, match=r"did you mean moderate.*known: .*moderate, random"):
        select(labels, 5, "modrate")
    with pytest.raises(ValueError, match="unknown coreset scope 'clas'; did you mean class"):
        select(labels, 5, "random", scope="clas")


def test_every_module_in_the_package_is_a_method() -> None:
    needs = {name: load_method(name).NEEDS for name in method_names()}
    assert needs == {
        "all": "labels",
        "clean_first": "surroundings",
        "el2n": "outputs",
        "entropy": "outputs",
        "forgetting": "outputs",
        "grand": "outputs",
        "herding": "features",
        "k_center": "features",
        "k_means": "features",
        "least_confidence": "outputs",
        "margin": "outputs",
        "moderate": "distances",
        "random": "labels",
        "zcore": "features",
    }


def test_bad_data() -> None:
    features, labels = make_data()
    with pytest.raises(ValueError, match="600 features but 599 labels"):
        select_coreset(features, labels[1:])
    with pytest.raises(ValueError, match="all samples are of class 1"):
        select_coreset(features, np.ones_like(labels))
    with pytest.raises(ValueError, match="no samples"):
        select_coreset(features[:0], labels[:0])
    with pytest.raises(ValueError, match="from 0 on, got -1"):
        select_coreset(features, labels - 1)
    features[[7, 9], 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="row 7 of the features has NaN or infinite") as error:
        select_coreset(features, labels)
    assert "\n" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 100))
def test_draw_balanced(size: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), [20, 25, 30, 35]))
    ids = draw_balanced(labels, size, seed)
    assert ids.tolist() == sorted(set(ids.tolist()))
    assert len(ids) == size
    counts = np.bincount(labels[ids], minlength=4)
    assert counts.max() - counts.min() <= 1
    assert ids.tolist() == draw_balanced(labels.tolist(), size, seed).tolist()


def test_draw_balanced_changes_with_the_seed_and_not_with_a_random_coreset() -> None:
    labels = np.arange(1000) % 10
    first, other = draw_balanced(labels, 100, 0), draw_balanced(labels, 100, 1)
    assert first.tolist() != other.tolist()
    # 10 of the 100 samples of a class by chance; a shared random stream would give all
    assert len(np.intersect1d(first, select(labels, 100, "random"))) < 30


def test_draw_balanced_errors() -> None:
    labels = np.repeat([0, 1, 5], [10, 2, 10])
    with pytest.raises(ValueError, match="class 1 has 2 samples to draw 4 from"):
        draw_balanced(labels, 12, 0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw_balanced(labels, 0, 0)


def test_all_takes_everything_or_refuses() -> None:
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    labels = np.arange(20) % 2
    assert select_coreset(features, labels, 1.0, "all").tolist() == list(range(20))
    with pytest.raises(ValueError, match="use ratio=1"):
        select_coreset(features, labels, 0.5, "all")
