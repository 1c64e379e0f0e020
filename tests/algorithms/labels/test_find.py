"""`find_label_errors` as a user meets it: what goes in, what comes out."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sets import blobs, flipped, soft

import cwerm
from cwerm.algorithms.detection import auroc
from cwerm.algorithms.labels import LabelErrors, find

FEATURES, CLASSES = blobs()
LABELS, WRONG = flipped(CLASSES, 0.2)
NAMES = np.array(["ant", "bee", "cat", "dog"])


@pytest.fixture(scope="module")
def found() -> LabelErrors:
    return cwerm.find_label_errors(FEATURES, LABELS)


def test_wrong_labels_are_found_and_corrected(found: LabelErrors) -> None:
    assert found.noise_found
    assert auroc(found.quality, WRONG) > 0.97
    assert (found.suggested_label[WRONG] == CLASSES[WRONG]).mean() > 0.9
    assert abs(found.noise_rate - WRONG.mean()) < 0.05
    low, high = found.noise_rate_interval
    assert low <= WRONG.mean() <= high
    hit = (found.is_issue & WRONG).sum()
    assert 2 * hit / (found.is_issue.sum() + WRONG.sum()) > 0.9
    assert found.weight.mean() == pytest.approx(1, abs=1e-6)
    assert found.weight[WRONG].sum() < 0.05 * found.weight.sum()
    np.testing.assert_allclose(found.belief.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.belief[np.arange(600), LABELS], found.quality, atol=1e-6)
    np.testing.assert_allclose(found.transitions.sum(axis=1), 1)


def test_on_clean_labels_every_weight_is_exactly_one(clean: LabelErrors) -> None:
    result = clean
    assert not result.noise_found
    assert (result.weight == 1).all()
    assert not result.is_issue.any()
    assert result.noise_rate_interval[0] == 0
    assert repr(result) == "no wrong labels found among 600: all weights are 1"


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_too_few_to_tell_are_not_none(rate: float) -> None:
    """Of 100 samples none is found wrong, whether there are some or not, and none is not what is said."""
    features, classes = blobs(100)
    labels, wrong = flipped(classes, rate)
    few = cwerm.find_label_errors(features, labels)
    assert (few.weight == 1).all()
    assert (few.noise_found, few.undecided) == (False, True)
    assert few.noise_rate_interval[1] > max(wrong.mean(), 0.1)
    most = round(100 * few.noise_rate_interval[1])
    first, second = repr(few).splitlines()
    assert first == (
        f"no wrong labels found, but 100 are too few to tell: up to {most}% may be wrong; "
        "all weights are 1"
    )
    assert second.startswith("warning: what would tell: more samples, or features that keep")


def test_enough_tell_either_way(clean: LabelErrors, found: LabelErrors) -> None:
    assert not clean.undecided
    assert not found.undecided


@pytest.mark.parametrize("samples", [720, 1000])
def test_many_small_classes_that_overlap_are_no_noise(samples: int) -> None:
    """Of 16 samples the surest fifth are three; ten would reach to where right labels differ."""
    features, labels = blobs(samples, classes=60, distance=4.0)
    assert not cwerm.find_label_errors(features, labels).noise_found
    assert cwerm.find_label_errors(features, flipped(labels, 0.1)[0]).noise_found
    wrong = np.random.default_rng(0).random(samples) < 0.3
    paired = np.where(wrong, (labels + 1) % 60, labels)
    assert cwerm.find_label_errors(features, paired).noise_found


@pytest.mark.parametrize("kind", ["wide", "noise", "constant"])
def test_features_that_say_nothing_close_the_gate_with_a_warning(kind: str) -> None:
    random = np.random.default_rng(0)
    features = {
        "wide": random.normal(size=(600, 50)),
        "noise": random.normal(size=(600, 3)),
        "constant": np.ones((600, 4)),
    }[kind]
    result = cwerm.find_label_errors(features, LABELS)
    assert (result.weight == 1).all()
    assert "features say nothing" in result.warnings[0]
    assert not result.undecided
    assert repr(result).startswith("none of 600 labels can be judged: all weights are 1\n")


LABEL_KINDS: dict[str, Any] = {
    "list": CLASSES.tolist(),
    "strings": NAMES[CLASSES].tolist(),
    "series": pd.Series(NAMES[CLASSES], index=np.arange(600)[::-1]),
    "categories": pd.Series(NAMES[CLASSES]).astype("category"),
    "tensor": torch.from_numpy(CLASSES),
}


@pytest.fixture(scope="module")
def clean() -> LabelErrors:
    return cwerm.find_label_errors(FEATURES, CLASSES)


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_labels_of_any_kind_give_the_same_and_come_back_as_they_were(
    kind: str, clean: LabelErrors
) -> None:
    features = torch.from_numpy(FEATURES) if kind == "tensor" else FEATURES
    features = pd.DataFrame(features) if kind == "series" else features
    result = cwerm.find_label_errors(features, LABEL_KINDS[kind])
    np.testing.assert_array_equal(result.quality, clean.quality)
    names = NAMES if kind in ("strings", "series", "categories") else np.arange(4)
    np.testing.assert_array_equal(result.suggested_label, names[clean.suggested_label])
    np.testing.assert_array_equal(result.classes, names)


def test_neither_the_order_of_the_rows_nor_the_names_of_classes_matter(found: LabelErrors) -> None:
    order, names = np.random.default_rng(1).permutation(600), np.array([2, 0, 3, 1])
    result = cwerm.find_label_errors(FEATURES[order], names[LABELS[order]])
    np.testing.assert_allclose(result.quality, found.quality[order], atol=2e-3)
    np.testing.assert_array_equal(result.suggested_label, names[found.suggested_label[order]])
    np.testing.assert_array_equal(result.is_issue, found.is_issue[order])


def test_the_result_is_the_same_for_any_number_of_threads(clean: LabelErrors) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        again = cwerm.find_label_errors(FEATURES, CLASSES)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(again.quality, clean.quality)


def test_a_burst_with_one_wrong_label_does_not_vouch_for_itself() -> None:
    random = np.random.default_rng(0)
    shots = np.repeat(FEATURES[:1], 15, axis=0) + 0.01 * random.normal(size=(15, 12))
    features = np.concatenate([FEATURES, shots.astype(np.float32)])
    labels = np.append(LABELS, np.full(15, (CLASSES[0] + 1) % 4))
    result = cwerm.find_label_errors(features, labels)
    assert result.is_issue[600:].all()
    assert len(set(result.duplicate_group[600:])) == 1
    assert result.duplicate_group[0] == result.duplicate_group[600]


def test_groups_by_hand_do_not_vouch_for_each_other() -> None:
    random = np.random.default_rng(0)
    apart = random.normal(size=(1, 12)) * 3
    shots = apart + 0.7 * random.normal(size=(25, 12))
    features = np.concatenate([FEATURES[:300], shots]).astype(np.float32)
    labels = np.append(LABELS[:300], np.full(25, 3))
    groups = [f"one {i}" for i in range(300)] + ["shots"] * 25
    alone = cwerm.find_label_errors(features, labels)
    grouped = cwerm.find_label_errors(features, labels, groups=groups)
    assert grouped.quality[300:].mean() < alone.quality[300:].mean()


def test_probabilities_alone_are_enough() -> None:
    result = cwerm.find_label_errors(labels=NAMES[LABELS], probabilities=soft(FEATURES, CLASSES))
    assert result.noise_found
    assert auroc(result.quality, WRONG) > 0.97


def test_probabilities_of_few_values_find_exactly_the_wrong_labels() -> None:
    """As of a model that says nothing but its favourite: all samples of a class are equally sure."""
    result = cwerm.find_label_errors(labels=LABELS, probabilities=0.9 * np.eye(4)[CLASSES] + 0.025)
    np.testing.assert_array_equal(result.is_issue, WRONG)
    assert result.noise_rate == pytest.approx(WRONG.mean(), abs=0.05)
    assert not result.warnings


@pytest.mark.slow
def test_probabilities_help_features() -> None:
    features, classes = blobs(distance=2.5)
    labels, wrong = flipped(classes, 0.2)
    alone = cwerm.find_label_errors(features, labels)
    both = cwerm.find_label_errors(features, labels, probabilities=soft(features, classes, 3))
    assert auroc(both.quality, wrong) > auroc(alone.quality, wrong) + 0.01


def test_a_reference_set_judges_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "REFERENCE", 400)
    monkeypatch.setattr(find, "ROWS", 128)
    features = np.concatenate([FEATURES, FEATURES[:3]])
    labels = np.append(LABELS, LABELS[:3])
    result = cwerm.find_label_errors(features, labels, groups=np.arange(603))
    assert auroc(result.quality[:600], WRONG) > 0.97
    np.testing.assert_array_equal(result.duplicate_group[600:], result.duplicate_group[:3])
    assert result.weight.mean() == pytest.approx(1, abs=1e-6)


def test_of_many_classes_the_most_probable_are_kept(
    monkeypatch: pytest.MonkeyPatch, clean: LabelErrors
) -> None:
    monkeypatch.setattr(find, "DENSE_CLASSES", 3)
    monkeypatch.setattr(find, "KEPT_CLASSES", 2)
    result = cwerm.find_label_errors(FEATURES, CLASSES)
    dense = result.belief.toarray()
    assert ((dense > 0).sum(axis=1) == 2).all()
    np.testing.assert_allclose(dense.max(axis=1), clean.belief.max(axis=1))


def test_the_reference_set_keeps_small_classes() -> None:
    codes = np.repeat([0, 1, 2], [60_000, 30, 1])
    rows = find.reference_rows(codes, 0)
    np.testing.assert_array_equal(np.bincount(codes[rows])[1:], [30, 1])
    assert 19_000 < len(rows) < 20_100
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("sizes", [[40, 1], [1, 1], [30, 30, 1, 2], [3] * 12])
def test_tiny_and_single_classes_are_no_reason_to_fail(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = np.random.default_rng(0).normal(size=(len(labels), 5)) + 4 * labels[:, None]
    result = cwerm.find_label_errors(features, labels)
    assert result.weight.mean() == pytest.approx(1, abs=1e-6)
    assert np.isfinite(result.quality).all()
    totals = np.bincount(labels, result.weight)
    assert (totals > 0).all()


@pytest.mark.slow
def test_trusted_samples_help() -> None:
    features, classes = blobs(1200, distance=3.5)
    labels, wrong = flipped(classes[:600], 0.5)
    alone = cwerm.find_label_errors(features[:600], labels)
    helped = cwerm.find_label_errors(
        features[:600], labels, trusted_features=features[600:], trusted_labels=classes[600:]
    )
    assert auroc(helped.quality, wrong) > auroc(alone.quality, wrong)


def test_as_a_table_and_as_lines(found: LabelErrors) -> None:
    table = found.to_pandas()
    assert list(table) == [
        "label",
        "quality",
        "suggested_label",
        "suggestion_probability",
        "is_issue",
        "weight",
        "duplicate_group",
    ]
    assert len(table) == 600
    lines = repr(found).splitlines()
    assert "of 600 labels look wrong: weights from 0 to" in lines[0]
    assert f"row {np.argmin(found.quality)}:" in lines[2]


def test_a_table_without_pandas_is_a_plain_error(
    found: LabelErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas; install it"):
        found.to_pandas()
