from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.algorithms.noise.corrupt import (
    NOISE_KINDS,
    corrupt_labels,
    long_tail,
    long_tail_counts,
    transition_matrix,
)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_frequencies_are_within_binomial_bounds_of_the_transition_matrix(
    kind: str, seed: int
) -> None:
    size = 20_000
    labels = np.tile(np.arange(6), size)
    noisy = corrupt_labels(labels, kind, 0.4, 6, seed)
    matrix = transition_matrix(kind, 0.4, 6, seed)
    for true in range(6):
        frequency = np.bincount(noisy[labels == true], minlength=6) / size
        # five standard deviations; exact where the probability is 0
        bound = 5 * np.sqrt(matrix[true] * (1 - matrix[true]) / size)
        assert (np.abs(frequency - matrix[true]) <= bound).all()


def test_transition_matrices_by_their_definitions() -> None:
    eye, ones = np.eye(10), np.ones((10, 10))
    p = 0.4
    uniform = transition_matrix("uniform", p, 10)
    np.testing.assert_allclose(uniform, p / 10 * ones + (1 - p) * eye)
    assert 1 - uniform[0, 0] == pytest.approx(0.36)
    symmetric = transition_matrix("symmetric", p, 10)
    np.testing.assert_allclose(symmetric, p / 9 * (ones - eye) + (1 - p) * eye)
    flip = transition_matrix("flip", p, 10)
    np.testing.assert_allclose(flip, p * np.roll(eye, 1, axis=1) + (1 - p) * eye)
    two = transition_matrix("flip2", p, 10)
    for true in range(10):
        assert sorted(two[true].round(9)) == [0] * 7 + [0.2, 0.2, 0.6]
        assert two[true, true] == pytest.approx(0.6)
    assert not np.array_equal(two, transition_matrix("flip2", p, 10, seed=1))


def test_the_two_classes_of_flip2_are_uniform_pairs_of_others() -> None:
    drawn = np.mean([transition_matrix("flip2", 1.0, 4, seed) for seed in range(2000)], axis=0)
    # each of the 3 others is one of the two with probability 2/3, and then has probability 1/2
    bound = 5 * 0.5 * math.sqrt(2 / 9 / 2000)
    assert np.abs(drawn - (1 - np.eye(4)) / 3).max() < bound


@settings(deadline=None)
@given(
    st.sampled_from(NOISE_KINDS),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(3, 12),
    st.integers(0, 300),
    st.integers(0, 2**32 - 1),
)
def test_noise_grows_with_the_rate_and_does_not_depend_on_later_samples(
    kind: str, rate: float, other: float, num_classes: int, n: int, seed: int
) -> None:
    low, high = sorted([rate, other])
    labels = np.random.default_rng(seed).integers(0, num_classes, n).astype(np.int32)
    less = corrupt_labels(labels, kind, low, num_classes, seed)
    more = corrupt_labels(labels, kind, high, num_classes, seed)
    assert less.dtype == labels.dtype
    changed = less != labels
    np.testing.assert_array_equal(more[changed], less[changed])
    reachable = transition_matrix(kind, high, num_classes, seed) > 0
    assert reachable[labels, more].all()
    head = corrupt_labels(labels[: n // 2], kind, low, num_classes, seed)
    np.testing.assert_array_equal(head, less[: n // 2])


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_rates_zero_and_one(kind: str) -> None:
    labels = np.arange(5000) % 5
    np.testing.assert_array_equal(corrupt_labels(labels, kind, 0.0, 5), labels)
    changed = (corrupt_labels(labels, kind, 1.0, 5) != labels).mean()
    assert changed == pytest.approx(0.8, abs=0.03) if kind == "uniform" else changed == 1


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_seeds_give_independent_noise(kind: str) -> None:
    labels = np.arange(10_000) % 10
    changed = [corrupt_labels(labels, kind, 0.5, 10, seed) != labels for seed in (0, 1)]
    share = [part.mean() for part in changed]
    assert (changed[0] & changed[1]).mean() == pytest.approx(share[0] * share[1], abs=0.025)


def test_noise_errors() -> None:
    labels = np.arange(10)
    with pytest.raises(ValueError, match=r"unknown label noise 'symetric'; did you mean symmetric"):
        corrupt_labels(labels, "symetric", 0.2, 10)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="from 0 to 1, got"):
            corrupt_labels(labels, "flip", rate, 10)
    with pytest.raises(ValueError, match=r"run from 0 to 9; .* from 0 to 8"):
        corrupt_labels(labels, "flip", 0.2, 9)
    with pytest.raises(ValueError, match=r"run from -1 to 8"):
        corrupt_labels(labels - 1, "flip", 0.2, 10)
    with pytest.raises(ValueError, match="flip2 label noise needs at least 3 classes, got 2"):
        corrupt_labels(labels % 2, "flip2", 0.2, 2)
    with pytest.raises(ValueError, match="symmetric label noise needs at least 2 classes, got 1"):
        corrupt_labels(labels * 0, "symmetric", 0.2, 1)


def test_long_tail_counts_of_cifar() -> None:
    assert long_tail_counts(5000, 10, 100.0).tolist() == [
        5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50,
    ]  # fmt: skip
    # sizes that the literature reports for CIFAR-10-LT and CIFAR-100-LT
    totals = {
        10.0: (20431, 19573),
        50.0: (13996, 12608),
        100.0: (12406, 10847),
        200.0: (11203, 9502),
    }
    for imbalance, (cifar10, cifar100) in totals.items():
        assert long_tail_counts(5000, 10, imbalance).sum() == cifar10
        assert long_tail_counts(500, 100, imbalance).sum() == cifar100


@given(st.integers(1, 3000), st.integers(2, 200), st.floats(1, 3000))
def test_long_tail_counts_fall_from_the_largest_to_the_smallest(
    n_max: int, num_classes: int, imbalance: float
) -> None:
    if imbalance > n_max:
        with pytest.raises(ValueError, match=f"use at most {n_max}"):
            long_tail_counts(n_max, num_classes, imbalance)
        return
    counts = long_tail_counts(n_max, num_classes, imbalance)
    assert counts[0] == n_max
    assert counts[-1] == math.floor(n_max / imbalance)
    assert (np.diff(counts) <= 0).all()
    for label, count in enumerate(counts):
        exact = n_max * imbalance ** (-label / (num_classes - 1))
        assert count <= exact * (1 + 1e-12)
        assert exact * (1 - 1e-12) < count + 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(20, 60), min_size=2, max_size=6), st.integers(0, 2**32 - 1))
def test_long_tail(sizes: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    ids = long_tail(labels, 10.0, seed)
    assert ids.tolist() == sorted(set(ids.tolist()))
    expected = [int(min(sizes) / 10 ** (c / (len(sizes) - 1))) for c in range(len(sizes))]
    assert np.bincount(labels[ids]).tolist() == expected
    assert ids.tolist() == long_tail(labels, 10.0, seed).tolist()
    assert np.isin(long_tail(labels, 20.0, seed), ids).all()


def test_long_tail_draws_at_random() -> None:
    labels = np.arange(200) % 2
    drawn = [long_tail(labels, 10.0, seed) for seed in range(1000)]
    frequency = np.bincount(np.concatenate(drawn), minlength=200) / 1000
    assert (frequency[labels == 0] == 1).all()
    assert np.abs(frequency[labels == 1] - 0.1).max() < 5 * math.sqrt(0.1 * 0.9 / 1000)


def test_long_tail_errors() -> None:
    labels = np.arange(100) % 10
    for imbalance in (0.01, math.nan):
        with pytest.raises(ValueError, match="largest class over the smallest, at least 1, got"):
            long_tail(labels, imbalance)
    with pytest.raises(ValueError, match=r"leaves no sample of 10 .* use at most 10"):
        long_tail(labels, 11.0)
    with pytest.raises(ValueError, match="class 1 has no samples"):
        long_tail(labels * 2, 2.0)
    for few in (labels * 0, labels[:0]):
        with pytest.raises(ValueError, match="needs at least 2 classes"):
            long_tail(few, 2.0)


@pytest.mark.parametrize("kind", ["uniform", "symmetric"])
def test_noise_of_very_many_classes_takes_no_table_of_them(kind: str) -> None:
    labels = np.arange(20_000).repeat(2)
    tracemalloc.start()
    noisy = corrupt_labels(labels, kind, 0.5, 20_000, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert 0.45 < (noisy != labels).mean() < 0.55
