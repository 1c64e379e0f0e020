"""`compare`: runs side by side; the figures against NumPy."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cwerm.errors import UserError
from cwerm.reports.compare import compare, varying_keys
from cwerm.terminal import console
from reports.made_up import a_job

ACCURACIES = {"erm": [0.60, 0.63, 0.61], "cw-erm": [0.71, 0.72, 0.75]}


def a_run(
    store: Path,
    name: str,
    settings: dict[str, Any],
    seed: int,
    accuracy: float,
    images: str = "abc",
) -> str:
    """The folder of a finished run with these figures."""
    folder = store / "runs" / name
    folder.mkdir(parents=True)
    job = {**a_job(settings), "name": name, "seed": seed}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    summary = {
        "name": name, "method": job["method"], "control": "none", "seed": seed,
        "test_accuracy": accuracy, "test_accuracy_top5": None, "train_accuracy": 0.9,
        "test_expected_calibration_error": 0.05, "test_per_class_accuracy": [accuracy] * 2,
        "class_names": ["a", "b"], "num_samples": 10, "num_test_samples": 5, "num_rejects": 0,
        "seconds": {**stages_of(job), "train": 10.0}, "reused": [],
        "artifacts": {"test_images": f"{store}/artifacts/ingest/{images}/test_images-00000.parquet"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)


def stages_of(job: dict[str, Any]) -> dict[str, float]:
    """Seconds of the stages before the training: plain training has no weights to make."""
    return {"ingest": 1.0} if job["method"] == "erm" else {"ingest": 1.0, "broadcast": 2.0}


def told(runs: list[str], to: Path) -> tuple[Any, list[str]]:
    said: list[str] = []
    with console.told_to(said.append):
        return compare(runs, to), said


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [
        a_run(tmp_path / "store", f"{method}-{seed}", {"method": method}, seed, accuracy)
        for method, accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def test_differences_are_those_seed_by_seed(runs: list[str], tmp_path: Path) -> None:
    results, said = told(runs, tmp_path / "out")
    plain, weighted = results.points
    assert (plain.is_baseline, weighted.is_baseline) == (True, False)
    found = results.difference(weighted)
    by_seed = np.subtract(ACCURACIES["cw-erm"], ACCURACIES["erm"])
    half = 4.302652729911275 * by_seed.std(ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert (found.mean, found.n) == (pytest.approx(by_seed.mean()), 3)
    assert (found.low, found.high) == pytest.approx((by_seed.mean() - half, by_seed.mean() + half))
    assert not any("paired" in line for line in said)
    lines = (tmp_path / "out" / "comparison.csv").read_text().splitlines()
    assert lines[0].startswith("method,baseline,trials,n,test_accuracy_mean")
    assert lines[1].startswith("erm,true,3,3,0.613")
    with Image.open(tmp_path / "out" / "comparison.png") as figure:
        assert np.asarray(figure.convert("L")).std() > 5
    assert "CW-ERM" in (tmp_path / "out" / "comparison.md").read_text()


def test_without_plain_training_the_first_run_is_the_baseline(tmp_path: Path) -> None:
    store = tmp_path / "store"
    runs = [
        a_run(store, f"r{lr}", {"method": "cw-erm", "train.lr": lr}, 0, lr) for lr in (0.3, 0.1)
    ]
    results, _ = told(runs, tmp_path / "out")
    assert results.keys == ("train.lr",)
    assert [point.is_baseline for point in results.points] == [True, False]
    assert results.difference(results.points[1]).mean == pytest.approx(-0.2)


def test_other_test_images_are_not_paired(runs: list[str], tmp_path: Path) -> None:
    other = a_run(tmp_path / "store", "other", {"method": "w-erm"}, 0, 0.8, images="xyz")
    results, said = told([*runs, other], tmp_path / "out")
    assert all(results.difference(point) is None for point in results.points)
    assert "not paired by seed: erm-0 and other were tested on other images" in said


def test_other_seeds_are_not_paired(tmp_path: Path) -> None:
    runs = [
        a_run(tmp_path / "store", method, {"method": method}, seed, 0.5)
        for seed, method in enumerate(("erm", "cw-erm"))
    ]
    results, said = told(runs, tmp_path / "out")
    assert results.difference(results.points[1]) is None
    assert any(line.startswith("where no difference stands, no seed is common") for line in said)


def test_of_two_equal_runs_one_counts(runs: list[str], tmp_path: Path) -> None:
    again = a_run(tmp_path / "store", "again", {"method": "erm"}, 1, 0.99)
    results, said = told([*runs, again, runs[0]], tmp_path / "out")
    assert results.points[0].scores[1] == 0.63
    assert "again has the job and the seed of erm-1, which counts" in said


def test_names_places_and_seeds_make_no_difference() -> None:
    jobs = [a_job({"method": "erm"}), {**a_job({"method": "erm"}), "seed": 3, "name": "x"}]
    assert varying_keys(jobs) == ()


@pytest.mark.parametrize("case", ["one", "no run", "no job", "job of words", "a file"])
def test_a_mistake_is_one_line(case: str, runs: list[str], tmp_path: Path) -> None:
    given, to, word = runs[:2], tmp_path / "out", "job.yaml can't be read"
    if case == "one":
        given, word = [runs[0], runs[0]], "give two or more"
    if case == "no run":
        given, word = [runs[0], str(tmp_path)], "no summary.json"
    if case == "no job":
        Path(runs[1], "job.yaml").unlink()
    if case == "job of words":
        Path(runs[1], "job.yaml").write_text("!!python/object/apply:os.system ['true']")
    if case == "a file":
        to.write_text("of somebody")
        word = "--to: "
    with pytest.raises(UserError, match=word) as refused:
        compare(given, to)
    assert "\n" not in str(refused.value)


def test_a_run_has_the_seconds_of_its_own_stages(runs: list[str], tmp_path: Path) -> None:
    told([*runs[3:], *runs[:3]], tmp_path / "out")
    rows = [*csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines())]
    assert [row["seconds_broadcast_mean"] for row in rows] == ["2.0", ""]


def test_what_is_of_images_does_not_tell_a_head_apart() -> None:
    head = {"method": "erm", "train.input": "features", "train.model": "linear"}
    found = varying_keys([a_job({"method": "erm"}), a_job(head)])
    assert found == ("train.input", "train.model", "train.lr")
