"""Nothing of a finished run is lost to another one of its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Answer, Finished

from cwerm.job.tree import load_job
from cwerm.pipeline import plan
from cwerm.runs.naming import free_name


def name_for(finished: Finished, store: Path, *changes: str) -> tuple[str, str | None]:
    return free_name(plan(load_job(finished.job, [f"storage={store}", *changes])))


@pytest.fixture
def store(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.store, tmp_path / "store"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ([], "small"),
        (["resources.workers=2", "train.keep_checkpoints=9"], "small"),
        (["name=other", "method=erm"], "other"),
        (["method=erm"], "small-erm-seed0"),
        (["seed=3"], "small-cw-erm-seed3"),
        (["control=permuted"], "small-cw-erm-permuted-seed0"),
        (["train.lr=0.3"], "small-2"),
        (["reweight.epochs=9"], "small-2"),
    ],
)
def test_who_gets_which_folder(
    finished: Finished, store: Path, changes: list[str], name: str
) -> None:
    found, holds = name_for(finished, store, *changes)
    assert found == name
    taken = not name.startswith("small") or name == "small"
    assert holds == (None if taken else "cw-erm, seed 0")


def test_the_same_job_finds_its_own_folder_again(finished: Finished, store: Path) -> None:
    key = plan(load_job(finished.job, [f"storage={store}", "train.lr=0.3"]))["train"].key
    second = shutil.copytree(store / "runs" / "small", store / "runs" / "small-2")
    summary = json.loads((second / "summary.json").read_text())
    former = summary["artifacts"]["model"].split("/")[-3]
    summary["artifacts"]["model"] = summary["artifacts"]["model"].replace(former, key)
    (second / "summary.json").write_text(json.dumps(summary))
    assert name_for(finished, store, "train.lr=0.3")[0] == "small-2"
    assert name_for(finished, store, "train.lr=0.4")[0] == "small-3"
    (second / "summary.json").write_text("{")
    assert name_for(finished, store, "train.lr=0.4")[0] == "small-2", "a damaged one is made anew"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_writes_where_it_may(
    cwerm: Callable[..., Answer], finished: Finished, store: Path, overwrite: bool
) -> None:
    """The store has all that the job asks for, and under its name the summary of another training."""
    summary = store / "runs" / "small" / "summary.json"
    other = json.loads(summary.read_text())
    key = other["artifacts"]["model"].split("/")[-3]
    other["artifacts"]["model"] = other["artifacts"]["model"].replace(key, "0" * len(key))
    summary.write_text(json.dumps(other))
    options = ["--overwrite"] if overwrite else []
    answer = cwerm("run", finished.job, "--storage", store, *options)
    answer.succeeded()
    assert ("this run goes to runs/small-2" in answer.out) != overwrite
    assert (json.loads(summary.read_text()) == other) != overwrite
    assert (store / "runs" / "small-2" / "summary.json").exists() != overwrite
