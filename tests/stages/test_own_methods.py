"""Methods that a job names by their path, from the one file of the example."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_method
import pytest
from sklearn.metrics import roc_auc_score

from cwerm.algorithms import selection
from cwerm.errors import UserError
from cwerm.job.tree import Job, load_job, parse_job
from cwerm.methods.samples import Batch
from cwerm.pipeline import plan
from cwerm.runs.preflight import check_methods
from cwerm.stages import common
from stages.conftest import Chain

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_method"
OWN = {
    "coreset__method": "own_method:Spread",
    "coreset__meta": "none",
    "reweight__method": "own_method:AgreeingNeighbors",
    "reweight__voters": 15,
    "broadcast__method": "own_method:NearerCountsMore",
    "broadcast__sharpness": 2.0,
}


def test_all_three_run_on_the_workers(vary: Callable[..., Chain]) -> None:
    mine = vary("broadcast", **OWN)
    ids = common.column(mine.table("select", "coreset"), "id")
    assert len(ids) == 100
    features = common.column(mine.table("extract", "features"), "feature").astype(np.float32)
    labels = mine.labels
    plain = own_method.Neighbors(features[ids], labels[ids], 15)
    expected = plain.judge(Batch(features[ids], labels[ids], rows=np.arange(100))).weight
    found = common.column(mine.table("reweight", "coreset_weights"), "weight")
    assert np.array_equal(found, expected)
    table = mine.table("broadcast", "weights")
    weights = common.column(table, "weight")
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    right = common.right_labels_of(mine.store, mine.plan.execute("label").artifact)
    assert roc_auc_score(labels == right, weights) > 0.7


def test_what_was_learned_judges_all_samples(vary: Callable[..., Chain]) -> None:
    own = {key: value for key, value in OWN.items() if not key.startswith("broadcast")}
    mine = vary("broadcast", **own, broadcast__method="function")
    features = common.column(mine.table("extract", "features"), "feature").astype(np.float32)
    ids = common.column(mine.table("select", "coreset"), "id")
    plain = own_method.Neighbors(features[ids], mine.labels[ids], 15)
    rows = np.full(len(features), -1)
    rows[ids] = np.arange(len(ids))
    expected = plain.judge(Batch(features, mine.labels, rows=rows)).weight
    weights = common.column(mine.table("broadcast", "weights"), "weight")
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)


def test_keys_and_version_are_part_of_what_is_made(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> tuple[str, str, str]:
        steps = plan(make_job())
        return steps["select"].key, steps["reweight"].key, steps["broadcast"].key

    make_job(**OWN)
    first = keys()
    assert keys() == first
    make_job(broadcast__sharpness=3.0)
    assert [a == b for a, b in zip(keys(), first, strict=True)] == [True, True, False]
    make_job(broadcast__sharpness=2.0)
    for kind, same in (
        (own_method.NearerCountsMore, [True, True, False]),
        (own_method.AgreeingNeighbors, [True, False, False]),
        (own_method.Spread, [False, False, False]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "version", 2)
            assert [a == b for a, b in zip(keys(), first, strict=True)] == same


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reweight__method": "own_method:Missing"}, "reweight.method: 'own_method:Missing' can't be imp"),
        ({"reweight__method": "no_such:Method"}, "No module named 'no_such'"),
        ({"reweight__method": "own_method:Spread"}, "is no Reweighting; derive it from cwerm.methods"),
        ({"broadcast__method": "own_method:AgreeingNeighbors"}, "is no Spreading; derive it from"),
        ({"coreset__method": "own_method:AgreeingNeighbors"}, "coreset.method: "),
        ({"reweight__voters": 0}, "reweight.voters: got 0, should be a whole number of at least 1"),
        ({"reweight__votes": 3}, "reweight.votes: unknown key; did you mean 'voters'?"),
        ({"control": "untrained"}, "control: 'untrained' needs something to train"),
        ({"method": "w-erm"}, "for method w-erm; use metaweightnet or l2r"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(
    make_job: Callable[..., Job], changes: dict[str, Any], words: str
) -> None:
    job = make_job(**{**OWN, **changes})

    def check() -> None:
        check_methods(job)
        _ = plan(job)["select"].key

    with pytest.raises(UserError) as caught:
        check()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_a_job_imports_nothing(tmp_path: Path) -> None:
    """A job file that lies in a bucket runs no code of its own."""
    tree = {"data": {"source": "sample"}, "reweight": {"method": "antigravity:Evil"}}
    assert parse_job(tree).reweight.method == "antigravity:Evil"
    assert "antigravity" not in sys.modules
    assert load_job(EXAMPLE / "job.yaml").to_yaml()
    with pytest.raises(ValueError, match="unknown coreset method"):
        selection.load_method("spread")


def test_a_module_that_workers_lack_is_named(
    vary: Callable[..., Chain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(EXAMPLE / "own_method.py", tmp_path / "known_here_alone.py")
    monkeypatch.syspath_prepend(tmp_path)
    own = {**OWN, "reweight__method": "known_here_alone:AgreeingNeighbors"}
    with pytest.raises(UserError, match=r"^a worker has no module 'known_here_alone': install it"):
        vary("reweight", **own)


@pytest.mark.slow
def test_the_example_runs_as_its_readme_says(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    done = subprocess.run(
        [Path(sys.executable).with_name("cwerm"), "run", "job.yaml"],
        cwd=tmp_path / "mine", capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
