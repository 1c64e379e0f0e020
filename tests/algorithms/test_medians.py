from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cwerm.algorithms.medians import MedianState, dimension_blocks


def numpy_medians(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    exact = features.astype(np.float64)
    classes = range(labels.max() + 1)
    return np.stack([np.median(exact[labels == c], axis=0) for c in classes])


def streamed_medians(
    features: np.ndarray, labels: np.ndarray, parts: list[np.ndarray], order: list[int]
) -> np.ndarray:
    class_counts = np.bincount(labels)
    state = MedianState.start(
        len(class_counts), features.shape[1], features.dtype.name, class_counts
    )
    while not state.done:
        sent = pickle.loads(pickle.dumps(state))
        counts = [pickle.dumps(sent.count(features[rows], labels[rows])) for rows in parts]
        state = state.advance(sum(pickle.loads(counts[part]) for part in order))
    return state.medians()


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num_classes = draw(st.integers(1, 4))
    n, d = draw(st.integers(num_classes, 40)), draw(st.integers(1, 3))
    width = draw(st.sampled_from([16, 32]))
    largest = 2.0**15 if width == 16 else 2.0**99
    numbers = st.floats(-largest, largest, width=width)
    few = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.5])  # many ties
    dtype = np.dtype(f"float{width}")
    features = draw(arrays(dtype, (n, d), elements=draw(st.sampled_from([numbers, few]))))
    # every class has a row
    extra = draw(arrays(np.int32, n - num_classes, elements=st.integers(0, num_classes - 1)))
    return features, np.concatenate([np.arange(num_classes, dtype=np.int32), extra])


@settings(max_examples=150, deadline=None)
@given(data_sets(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_equals_numpy_however_split(data, num_parts, random) -> None:
    features, labels = data
    part_of = np.array([random.randrange(num_parts) for _ in labels])
    parts = [np.flatnonzero(part_of == part) for part in range(num_parts)]
    order = list(range(num_parts))
    random.shuffle(order)
    np.testing.assert_array_equal(
        streamed_medians(features, labels, parts, order), numpy_medians(features, labels)
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equals_numpy_on_larger_data(dtype: str) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, 20_001)
    features = generator.standard_normal((20_001, 60)).astype(dtype)  # more than a chunk
    features[:, :20] = np.maximum(features[:, :20], 0)  # as after ReLU: half zeros
    parts = np.array_split(np.arange(len(labels)), 3)
    result = streamed_medians(features, labels, parts, [0, 1, 2])
    np.testing.assert_array_equal(result, numpy_medians(features, labels))


def test_even_class_whose_middle_values_differ_in_the_first_byte() -> None:
    features = np.array([[-60000.0], [60000.0]], np.float32)
    result = streamed_medians(features, np.zeros(2, int), [np.arange(2)], [0])
    np.testing.assert_array_equal(result, [[0.0]])


def test_zeros_of_both_signs_are_one_number() -> None:
    features = np.array([[-0.0], [-0.0], [0.0]], np.float16)
    result = streamed_medians(features, np.zeros(3, int), [np.arange(3)], [0])
    assert not np.signbit(result).any()


def test_blocks_cover_all_dimensions_within_the_memory() -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(400) % 10
    features = generator.standard_normal((400, 23)).astype(np.float16)
    limit = 100_000
    blocks = dimension_blocks(10, 23, limit)
    assert len(blocks) > 1
    assert np.concatenate([np.arange(23)[block] for block in blocks]).tolist() == list(range(23))
    medians = []
    for block in blocks:
        part = np.ascontiguousarray(features[:, block])
        state = MedianState.start(10, part.shape[1], "float16", np.bincount(labels))
        while not state.done:
            counts = state.count(part, labels)
            assert counts.nbytes <= limit
            state = state.advance(counts)
        medians.append(state.medians())
    np.testing.assert_array_equal(np.hstack(medians), numpy_medians(features, labels))


def test_memory_too_small_for_one_dimension() -> None:
    with pytest.raises(ValueError, match="need at least 2048000 bytes, got 1000"):
        dimension_blocks(1000, 8, 1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    features = np.zeros((5, 2), np.float32)
    features[3, 1] = bad
    state = MedianState.start(1, 2, "float32", np.array([5]))
    with pytest.raises(ValueError, match="row 3 of the features"):
        state.count(features, np.zeros(5, int))


def test_unknown_dtype() -> None:
    with pytest.raises(ValueError, match="got float64"):
        MedianState.start(1, 2, "float64", np.array([5]))


def test_a_missing_part_is_noticed() -> None:
    state = MedianState.start(1, 2, "float32", np.array([5]))
    with pytest.raises(AssertionError):
        state.advance(state.count(np.zeros((2, 2), np.float32), np.zeros(2, int)))
