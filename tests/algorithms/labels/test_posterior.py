"""`LabelPosterior`: one fit, and judgements in blocks that are the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load, save
from sets import blobs, flipped

from cwerm.algorithms.labels import Judgement, LabelPosterior

FEATURES, CLASSES = blobs(900, classes=3)
LABELS, WRONG = flipped(CLASSES, 0.25)
ROWS = np.where(np.arange(900) < 600, np.arange(900), -1)


@pytest.fixture(scope="module")
def fitted() -> LabelPosterior:
    return LabelPosterior(3).fit(FEATURES[:600], LABELS[:600])


@pytest.fixture(scope="module")
def whole(fitted: LabelPosterior) -> Judgement:
    return fitted.judge(FEATURES, LABELS, reference_rows=ROWS)


def assert_same(found: Judgement, expected: Judgement) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("size", [1, 250])
def test_a_judgement_does_not_depend_on_its_block(
    size: int, fitted: LabelPosterior, whole: Judgement
) -> None:
    last = 25 if size == 1 else 900
    parts = [
        fitted.judge(
            FEATURES[s : s + size], LABELS[s : s + size], reference_rows=ROWS[s : s + size]
        )
        for s in range(0, last, size)
    ]
    joined = Judgement(*(np.concatenate(column)[:last] for column in zip(*parts, strict=True)))
    assert_same(joined, Judgement(*(column[:last] for column in whole)))


def test_its_state_makes_the_same_in_another_process(
    fitted: LabelPosterior, whole: Judgement
) -> None:
    again = LabelPosterior.from_state(load(save(fitted.state())))
    for ours, theirs in zip(again.judge(FEATURES, LABELS, reference_rows=ROWS), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("open", "noise_rate", "noise_rate_interval", "warnings"):
        assert getattr(again, name) == getattr(fitted, name)


def test_a_sample_of_the_reference_set_is_not_its_own_neighbour(fitted: LabelPosterior) -> None:
    assert fitted.reference is not None
    assert not (fitted.reference.near == np.arange(600)[:, None]).any()


def test_wrong_labels_outside_the_reference_set_are_found_as_well(whole: Judgement) -> None:
    right = whole.quality > 0.5
    assert (right[:600] == ~WRONG[:600]).mean() > 0.93
    assert (right[600:] == ~WRONG[600:]).mean() > 0.93
    assert whole.weight[:600].mean() == pytest.approx(1, abs=1e-5)


def test_the_classes_need_not_all_have_samples() -> None:
    posterior = LabelPosterior(6).fit(FEATURES[:300], CLASSES[:300])
    judged = posterior.judge(FEATURES[600:604], [0, 4, 5, 1])
    assert np.isfinite(judged.quality).all()
    assert judged.quality[[1, 2]].max() < 0.5


def test_closed_it_leaves_all_alone(fitted: LabelPosterior, whole: Judgement) -> None:
    closed = LabelPosterior.from_state(fitted.state())
    closed.close()
    judged = closed.judge(FEATURES, LABELS, reference_rows=ROWS)
    assert (judged.weight == 1).all()
    assert not judged.issue.any()
    np.testing.assert_array_equal(judged.quality, whole.quality)


def test_what_does_not_fit_is_refused(fitted: LabelPosterior) -> None:
    with pytest.raises(ValueError, match="features have 4 columns but fit saw 12"):
        fitted.judge(FEATURES[:2, :4], LABELS[:2])
    with pytest.raises(ValueError, match="labels reach 7"):
        fitted.judge(FEATURES[:1], [7])
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        LabelPosterior(1)
