"""Labels of test images are judged by what was learned from the training images, and change nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cwerm import pipeline
from cwerm.algorithms.labels import LabelPosterior
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.runs.preflight import check_judged
from cwerm.runs.summary import load_summary
from cwerm.stages import common
from cwerm.stages.plan import Plan
from stages.conftest import Chain, Vary
from stages.noisy import Arrays

pytestmark = pytest.mark.usefixtures("ray_session")

JUDGED: dict[str, Any] = {
    "reweight": {"method": "posterior"},
    "broadcast": {"method": "function"},
    "coreset": {"method": "auto", "meta": "none"},
    "data__judge_test": True,
}


def table(steps: Plan, stage: str, name: str) -> Any:
    return steps.store.read(steps.made[stage], name).sort_by("id")


def test_test_labels_are_judged_as_by_the_python_api(vary: Vary) -> None:
    """And the run tells the accuracy with and without those that look wrong."""
    chain = vary(None, **JUDGED, train__input="features", train__epochs=2, name="tested")
    result = pipeline.run(chain.job)

    steps = pipeline.plan(chain.job, "train", "judge_test")
    for name in steps.names:
        assert steps.execute(name).reused
    found = table(steps, "judge_test", "test_judgements")
    stored = common.column(table(steps, "embed_test", "test_features"), "feature")
    labels = common.column(table(steps, "ingest", "given_test_labels"), "label").astype(np.int64)
    chain.run("label")
    arrays = Arrays(Chain(steps))
    posterior = LabelPosterior(10, chain.job.seed).fit(arrays.features, arrays.labels)
    expected = posterior.judge(stored.astype(np.float32), labels)
    np.testing.assert_allclose(common.column(found, "quality"), expected.quality, atol=1e-5)
    assert np.array_equal(common.column(found, "suggested_label"), expected.suggested)
    assert 0 < expected.issue.sum() < 50

    folder = Path(result.folder)
    rows = [*csv.DictReader((folder / "test_suspects.csv").read_text().splitlines())]
    assert sorted(int(row["id"]) for row in rows) == np.flatnonzero(expected.issue).tolist()
    paths = table(steps, "ingest", "test_images").column("path").to_pylist()
    trained = {*table(steps, "ingest", "images").column("path").to_pylist()}
    assert all(row["path"] == paths[int(row["id"])] for row in rows)
    assert all(row["nearest_path"] in trained for row in rows)
    assert not (folder / "trusted_suspects.csv").exists()
    page = (folder / "suspects.html").read_text()
    assert f"Test images whose labels look wrong: {len(rows)}" in page
    assert all(f'data-id="test-{row["id"]}"' in page for row in rows)
    assert all(f'"test-{row["id"]}": ' in page for row in rows), "their pictures"
    unusual = [*csv.DictReader((folder / "unusual.csv").read_text().splitlines())]
    assert len(unusual) == 48
    assert all(f'<img data-id="{row["id"]}"' in page for row in unusual)

    summary = load_summary(result.folder)
    right = common.column(table(steps, "train", "test_predictions"), "predicted") == labels
    assert summary["test_accuracy"] == pytest.approx(right.mean())
    without = right[~expected.issue].mean()
    assert summary["test_accuracy_without_suspects"] == pytest.approx(without)
    assert summary["test_suspects"] == len(rows)
    assert summary["trusted_suspects"] is None


def test_nothing_else_depends_on_it(vary: Vary) -> None:
    on = pipeline.plan(vary(None, **JUDGED).job, "train", "judge_test")
    off = pipeline.plan(vary(None, **{**JUDGED, "data__judge_test": False}).job)
    assert {*on.names} - {*off.names} == {"embed_test", "judge_test"}
    assert all(on[name].key == off[name].key for name in off.names)


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, True),
        ({"data": {"source": "a", "judge_test": False}}, False),
        ({"data": {"source": "a", "noise": "flip"}}, False),
        ({"data": {"source": "a", "noise": "flip", "judge_test": True}}, True),
        ({"method": "erm"}, False),
        ({"method": "c-random-erm"}, False),
        ({"reweight": {"method": "metaweightnet"}}, False),
    ],
)
def test_where_labels_are_judged_those_of_test_images_are(
    changes: dict[str, Any], judged: bool
) -> None:
    assert parse_job({"data": {"source": "a"}, **changes}).judges_test == judged


def test_asked_for_where_nothing_judges_it_is_refused() -> None:
    job = parse_job({"data": {"source": "a", "judge_test": True}, "method": "erm"})
    with pytest.raises(
        UserError, match=r"data\.judge_test: .* method cw-erm with reweight\.method"
    ):
        check_judged(job)
