from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwerm.algorithms.noise.confusion import confuse_by_table, confusion_matrix, scale_confusions
from cwerm.algorithms.noise.instance import confuse_by_instance
from cwerm.algorithms.noise.open_set import draw_replacements

ROOT = Path(__file__).parents[3]
OF_FASHION = ROOT / "cwerm/data/sample/confusions.json"
OF_DIGITS = ROOT / "benchmarks/label_noise/tables/annotators_digits.json"


def weak(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n).astype(np.int32)
    return labels, generator.dirichlet(np.full(classes, 0.5), n)


@settings(deadline=None)
@given(
    st.floats(0, 1), st.floats(0, 1), st.integers(2, 8), st.integers(1, 200), st.integers(0, 2**31)
)
def test_instance_noise_has_exactly_the_asked_rate_and_grows_with_it(
    rate: float, other: float, classes: int, n: int, seed: int
) -> None:
    labels, probabilities = weak(n, classes, seed)
    low, high = sorted([rate, other])
    less = confuse_by_instance(labels, probabilities, low, seed)
    more = confuse_by_instance(labels, probabilities, high, seed)
    assert more.dtype == labels.dtype
    assert np.count_nonzero(less != labels) == round(low * n)
    assert np.count_nonzero(more != labels) == round(high * n)
    changed = less != labels
    np.testing.assert_array_equal(more[changed], less[changed])
    for row in np.flatnonzero(more != labels):
        others = [(p, -c) for c, p in enumerate(probabilities[row]) if c != labels[row]]
        assert more[row] == -max(others)[1]


def test_instance_noise_is_drawn_in_proportion_to_the_confusion() -> None:
    """Against the plain draw of one after the other, on three samples of which one changes."""
    labels = np.zeros(3, np.int64)
    confusion = np.array([0.1, 0.2, 0.5])
    probabilities = np.stack([1 - confusion, confusion], axis=1)
    draws = 1500
    counts = np.zeros(3)
    for seed in range(draws):
        counts += confuse_by_instance(labels, probabilities, 1 / 3, seed) != labels
    expected = confusion / confusion.sum()
    assert (np.abs(counts / draws - expected) < 5 * np.sqrt(expected / draws)).all()


def test_instance_noise_refuses_what_it_cannot_do() -> None:
    labels, probabilities = weak(20, 3, 0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        confuse_by_instance(labels, probabilities, 1.2)
    with pytest.raises(ValueError, match="row 0 of the probabilities"):
        confuse_by_instance(labels, 2 * probabilities, 0.2)
    with pytest.raises(ValueError, match="columns for 0 to 2"):
        confuse_by_instance(labels + 3, probabilities, 0.2)
    certain = np.eye(3)[labels]
    with pytest.raises(ValueError, match="confuses 0 images only"):
        confuse_by_instance(labels, certain, 0.2)


NAMES = ["cat", "dog", "fox"]
CONFUSIONS = {"cat": {"dog": 0.1, "fox": 0.3}, "fox": {"dog": 0.25}}


def test_a_table_by_names_is_a_matrix_of_rows_that_sum_to_one() -> None:
    expected = np.array([[0.6, 0.1, 0.3], [0, 1, 0], [0, 0.25, 0.75]])
    np.testing.assert_allclose(confusion_matrix(CONFUSIONS, NAMES), expected)


def test_noise_by_a_table_has_the_table_s_frequencies() -> None:
    matrix = confusion_matrix(CONFUSIONS, NAMES)
    size = 20_000
    labels = np.repeat(np.arange(3, dtype=np.int16), size)
    noisy = confuse_by_table(labels, matrix, seed=3)
    assert noisy.dtype == labels.dtype
    for true in range(3):
        frequency = np.bincount(noisy[labels == true], minlength=3) / size
        bound = 5 * np.sqrt(matrix[true] * (1 - matrix[true]) / size)
        assert (np.abs(frequency - matrix[true]) <= bound).all()
    np.testing.assert_array_equal(noisy, confuse_by_table(labels, matrix, seed=3))
    assert not np.array_equal(noisy, confuse_by_table(labels, matrix, seed=4))


def test_a_table_scaled_to_a_rate_changes_that_share_and_keeps_its_proportions() -> None:
    matrix = confusion_matrix(CONFUSIONS, NAMES)
    labels = np.array([0] * 60 + [1] * 20 + [2] * 20)
    scaled = scale_confusions(matrix, labels, 0.4)
    shares = np.array([0.6, 0.2, 0.2])
    assert shares @ (1 - np.diag(scaled)) == pytest.approx(0.4)
    assert scaled[0, 2] / scaled[0, 1] == pytest.approx(3)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    less, more = (confuse_by_table(labels, scale_confusions(matrix, labels, r)) for r in (0.2, 0.4))
    assert (more[less != labels] != labels[less != labels]).all()
    with pytest.raises(ValueError, match="class 0 would be wrong"):
        scale_confusions(matrix, labels, 0.8)
    with pytest.raises(ValueError, match="confuses none"):
        scale_confusions(np.eye(3), labels, 0.1)


@pytest.mark.parametrize(
    ("confusions", "message"),
    [
        ({"cat": {"cow": 0.1}}, "cow"),
        ({"cat": {"cat": 0.1}}, "taken for itself"),
        ({"cat": {"dog": -0.1}}, "probability -0.1"),
        ({"cat": {"dog": 0.7, "fox": 0.7}}, "class cat would be wrong with probability 1.4"),
    ],
)
def test_a_wrong_table_is_refused(confusions: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(confusions, NAMES)
    with pytest.raises(ValueError, match="rows for 0 to 2"):
        confuse_by_table(np.array([3]), np.eye(3))
    with pytest.raises(ValueError, match="sum to 1"):
        confuse_by_table(np.array([2]), 0.5 * np.eye(3))


@pytest.mark.parametrize("name", ["fashion", "digits"])
def test_the_tables_of_annotators_confuse_a_quarter_and_leave_each_class_its_majority(
    name: str,
) -> None:
    table = json.loads((OF_FASHION if name == "fashion" else OF_DIGITS).read_text())
    matrix = confusion_matrix(table, list(table))
    assert len(matrix) == 10
    assert 0.2 < 1 - np.diag(matrix).mean() < 0.3
    assert (matrix.argmax(axis=1) == np.arange(10)).all()
    assert (matrix.argmax(axis=0) == np.arange(10)).all()


@settings(deadline=None)
@given(
    st.floats(0, 1), st.floats(0, 1), st.integers(0, 200), st.integers(1, 50), st.integers(0, 99)
)
def test_replaced_rows_are_as_many_as_asked_and_take_every_other_sample_in_turn(
    rate: float, other: float, n: int, source_size: int, seed: int
) -> None:
    low, high = sorted([rate, other])
    few, _ = draw_replacements(n, source_size, low, seed)
    rows, source = draw_replacements(n, source_size, high, seed)
    assert len(rows) == len(source) == len(set(rows.tolist())) == round(high * n)
    assert set(few.tolist()) <= set(rows.tolist())
    np.testing.assert_array_equal(rows, np.sort(rows))
    taken = np.bincount(source, minlength=source_size)
    assert taken.max() - taken.min() <= 1
    again, _ = draw_replacements(n, source_size, high, seed)
    np.testing.assert_array_equal(rows, again)


def test_replacements_depend_on_the_seed_and_need_a_source() -> None:
    rows, source = draw_replacements(1000, 1000, 0.2, seed=0)
    others, other_source = draw_replacements(1000, 1000, 0.2, seed=1)
    assert not np.array_equal(rows, others)
    assert not np.array_equal(source, other_source)
    # not the first rows of the source, and not in the order of the rows
    assert source.max() > 900
    assert abs(np.corrcoef(rows, source)[0, 1]) < 0.3
    with pytest.raises(ValueError, match="no samples"):
        draw_replacements(10, 0, 0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        draw_replacements(10, 5, -0.5)
