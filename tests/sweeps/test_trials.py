"""Sweeps by Ray Tune: what trials share, what fails, what is stopped, and what a kill costs."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from cli.commands import process, start
from stages.conftest import LITE0, chain_tree

from cwerm import pipeline
from cwerm.job.tree import load_job, parse_job
from cwerm.reports.comparison import read_sweep
from cwerm.sweeps.sweep import sweep

SPACE = [{"method": "erm"}, {"method": "cw-erm", "coreset": {"ratio": {"grid": [0.1, 0.2]}}}]


class Study:
    """A sweep's two files, and what it has left."""

    def __init__(self, folder: Path, data: Path, tree: dict[str, Any], **train: Any) -> None:
        self.store = folder / "store"
        job = chain_tree(data, self.store)
        job["train"] |= {"model": "small_cnn", "epochs": 2, **train}
        job["resources"] = {"workers": 1}
        self.job, self.tune = folder / "job.yaml", folder / "tune.yaml"
        self.job.write_text(yaml.safe_dump(job))
        self.tune.write_text(yaml.safe_dump({"name": "study", **tree}))

    @property
    def folder(self) -> Path:
        return self.store / "sweeps" / "study"

    def run(self) -> list[dict[str, Any]]:
        """Run it in this process; the rows of its results."""
        sweep(self.tune, self.job)
        return self.rows()

    def rows(self) -> list[dict[str, Any]]:
        rows = pq.read_table(self.folder / "results.parquet").to_pylist()
        return [{**row, "job": json.loads(row["job"])} for row in rows]

    def scores(self) -> dict[str, float]:
        return {row["trial"]: row["validation_accuracy"] for row in self.rows()}

    def attempts(self, stage: str) -> list[Path]:
        """The folders that attempts at artifacts of a stage have made."""
        found = (self.store / "artifacts" / stage).glob("*/*")
        return [path for path in found if path.is_dir() and len(path.name) == 12]


@pytest.fixture(scope="module")
def finished(
    ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """Six trials of which one ratio is impossible."""
    space = [*SPACE[:1], {"method": "cw-erm", "coreset": {"ratio": {"grid": [0.1, 0.0001]}}}]
    tree = {"space": space, "seeds": 2, "baseline": {"method": "erm"}}
    study = Study(tmp_path_factory.mktemp("sweep"), parted_data, tree)
    study.run()
    return study


@pytest.mark.slow
def test_trials_share_what_they_have_in_common(finished: Study) -> None:
    assert len(finished.attempts("ingest")) == len(finished.attempts("extract")) == 1
    assert len(finished.attempts("train")) == 4


@pytest.mark.slow
def test_a_sweep_run_again_takes_up_what_is_there(finished: Study) -> None:
    before = finished.scores()
    finished.run()
    assert finished.scores() == before
    assert len(finished.attempts("train")) == 4


@pytest.mark.slow
def test_an_impossible_trial_fails_with_its_reason_and_the_rest_goes_on(finished: Study) -> None:
    rows = finished.rows()
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["job"]["coreset"]["ratio"] for row in failed] == [0.0001] * 2
    assert all("coreset.ratio" in row["error"] for row in failed)
    assert [row["status"] for row in rows].count("done") == 4


@pytest.mark.slow
def test_a_trial_is_the_run_of_its_job(finished: Study, tmp_path: Path) -> None:
    row = next(row for row in finished.rows() if row["job"]["method"] == "cw-erm")
    job = parse_job({**row["job"], "storage": str(tmp_path / "alone")})
    result = pipeline.run(job)
    assert result.summary["reused"] == []
    assert result.summary["test_accuracy"] == row["test_accuracy"]


@pytest.mark.slow
def test_the_best_job_is_by_the_mean_over_seeds_and_ready_to_run(finished: Study) -> None:
    description = json.loads((finished.folder / "sweep.json").read_text())
    best = read_sweep(description, pq.read_table(finished.folder / "results.parquet")).best
    assert best
    means = {}
    for row in finished.rows():
        if row["status"] == "done":
            means.setdefault(row["job"]["method"], []).append(row["validation_accuracy"])
    highest = max(means, key=lambda method: sum(means[method]) / len(means[method]))
    job = load_job(finished.folder / "best.yaml")
    assert job.method == highest == best.job["method"]
    events = [*(finished.folder / "events").rglob("events.*")]
    assert len(events) == 4, "TensorBoard's HParams, one file a trial that ended well"


def test_a_small_sweep_in_a_terminal(parted_data: Path, tmp_path: Path) -> None:
    """Judged by validation images, a tenth of the training images; the test images tell of the chosen."""
    tree = {"space": {"method": "erm", "train.lr": {"grid": [0.1, 1e-6]}}, "report": None}
    study = Study(tmp_path, parted_data, tree, epochs=1)
    answer = process("sweep", study.tune, study.job)
    answer.succeeded()
    told = " ".join(answer.out.split())
    assert "judged by validation images: 10 % of the training images are drawn" in told
    rows = study.rows()
    assert [row["status"] for row in rows] == ["done"] * 2
    assert [row["job"]["data"]["validation_fraction"] for row in rows] == [0.1] * 2
    shares = [40 * row["validation_accuracy"] for row in rows]
    assert np.allclose(shares, np.round(shares)), "of 40 images"
    chosen = max(rows, key=lambda row: row["validation_accuracy"])
    assert load_job(study.folder / "best.yaml").train.lr == chosen["job"]["train"]["lr"]
    with (study.folder / "report" / "table.csv").open() as file:
        lines = [*csv.DictReader(file)]
    for name in ("validation_accuracy", "test_accuracy"):
        assert [float(line[f"{name}_mean"]) for line in lines] == [row[name] for row in rows]
    text = (study.folder / "report" / "table.md").read_text()
    assert "| validation accuracy, % | test accuracy, % |" in text
    by = f"chosen by validation accuracy {100 * chosen['validation_accuracy']:.2f} %"
    assert f"{by}; test accuracy {100 * chosen['test_accuracy']:.2f} %" in text


@pytest.mark.slow
def test_a_trial_that_is_killed_says_why(
    parted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends processes where memory runs short, and a trial can tell no more; a later attempt has more."""
    study = Study(tmp_path, parted_data, {"space": {"method": "erm"}, "report": None}, epochs=1)
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    answer = process("sweep", study.tune, study.job)
    answer.refused("no trial ended well")
    assert "low on memory" in " ".join(answer.out.split())
    (row,) = study.rows()
    assert (row["job"]["method"], row["status"]) == ("erm", "failed")
    monkeypatch.undo()
    process("sweep", study.tune, study.job, "--resume").succeeded()
    assert [row["status"] for row in study.rows()] == ["done"]


@pytest.mark.slow
def test_killed_and_resumed(parted_data: Path, tmp_path: Path) -> None:
    """Kill -9 midway: no finished trial runs again, and the results are those of a whole sweep."""
    tree = {"space": SPACE, "seeds": 2, "max_concurrent_trials": 1}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = Study(tmp_path / "whole", parted_data, tree)
    process("sweep", whole.tune, whole.job).succeeded()

    study = Study(tmp_path / "killed", parted_data, tree)
    with start("sweep", study.tune, study.job) as running:
        deadline = time.monotonic() + 400
        while len([*(study.folder / "trials").glob("*.json")]) < 3:
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        running.wait()
    finished = {path: path.stat().st_mtime_ns for path in (study.folder / "trials").glob("*.json")}
    assert 3 <= len(finished) < 6, "struck too late"
    time.sleep(5)  # Ray's workers end with their driver
    process("sweep", study.tune, study.job, "--resume").succeeded()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert study.scores() == whole.scores()
    assert len(study.scores()) == 6

    study.tune.write_text(yaml.safe_dump({"name": "study", **tree, "seeds": 3}))
    answer = process("sweep", study.tune, study.job, "--resume")
    answer.refused("--resume", "other settings")
    shutil.rmtree(study.folder)
    process("sweep", study.tune, study.job, "--resume").refused("--resume", "there is no sweep")


@pytest.mark.slow
def test_asha_stops_trials_and_leaks_nothing(parted_data: Path, tmp_path: Path) -> None:
    """Ten trials on two cores, most of them hopeless."""
    space = {"method": "erm", "train.lr": {"grid": [0.05, *(1e-6 * n for n in range(1, 10))]}}
    tree = {"space": space, "scheduler": "asha", "reduction_factor": 2}
    study = Study(tmp_path, parted_data, tree, epochs=6)
    answer = process("sweep", study.tune, study.job)
    answer.succeeded()
    rows = study.rows()
    assert len(rows) == 10
    statuses = [row["status"] for row in rows]
    assert "stopped" in statuses
    assert set(statuses) <= {"done", "stopped"}
    assert rows[0]["status"] == "done", "the one that learns comes through"
    for row in rows:
        assert row["epochs"] == 6 if row["status"] == "done" else 1 <= row["epochs"] <= 6


@pytest.mark.slow
def test_optuna_weighs_accuracy_against_seconds(parted_data: Path, tmp_path: Path) -> None:
    tree = {
        "space": {"method": "erm", "train.lr": {"log_uniform": [1e-3, 1e-1]}},
        "search": "optuna",
        "num_samples": 4,
        "seeds": 2,
        "metric": ["validation_accuracy", "seconds_total"],
        "mode": ["max", "min"],
    }
    rows = Study(tmp_path, parted_data, tree).run()
    assert len(rows) == 8
    assert all(row["status"] == "done" for row in rows)
    rates = {row["job"]["train"]["lr"] for row in rows}
    assert len(rates) == 4
    assert {rate: sum(row["job"]["train"]["lr"] == rate for row in rows) for rate in rates} == (
        dict.fromkeys(rates, 2)
    )


@pytest.mark.slow
def test_two_backbones_are_extracted_once_each(parted_data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "resnet10t.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t").state_dict(), weights)
    pairs = [("tf_efficientnet_lite0", LITE0), ("resnet10t", str(weights))]
    space = [{"features": {"backbone": name, "weights": file}} for name, file in pairs]
    tree = {"space": space, "seeds": 2, "report": "backbones"}
    study = Study(tmp_path, parted_data, tree)
    rows = study.run()
    assert [row["status"] for row in rows] == ["done"] * 4
    assert len(study.attempts("extract")) == 2
    assert [*(study.folder / "report").glob("*.png")]
