"""What works: run, stage, reuse, doctor."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from commands import Answer, Finished, process

from cwerm import load_weights
from cwerm.store.local import LocalStorage

Cwerm = Callable[..., Answer]
STAGES = ["ingest", "extract", "select", "reweight", "broadcast", "train"]


def words_of_stage_lines(out: str) -> list[str]:
    lines = [line.split() for line in out.splitlines()]
    return [words[0] for words in lines if len(words) > 2 and words[0] in STAGES]


def test_a_run_says_what_it_did_and_nothing_else(finished: Finished) -> None:
    """Nothing of Ray, torch or timm reaches the terminal, on either stream."""
    finished.answer.succeeded()
    out = finished.answer.out
    assert words_of_stage_lines(out) == STAGES
    ours = (
        *STAGES,
        "small:",
        "test accuracy",
        "top 5",
        "calibration error",
        "━",
        "┏",
        "└",
        "├",
        "┃",
    )
    ours = (*ours, "run ", "model ", "weights ", "TensorBoard ", "report ", "│", "┌")
    ours = (*ours, "10 classes of 40 images each (", "train: train.parquet; test: test.parquet")
    for line in out.splitlines():
        assert line.strip().startswith(ours), line
    for noise in ("ray", "Ray", "WARNING", "INFO", "pid="):
        assert noise not in out.replace("TensorBoard", "")
    for place in ("run", "weights", "model", "report"):
        (line,) = [line for line in out.splitlines() if line.startswith(f"{place} ")]
        assert Path(line.split(maxsplit=1)[1]).exists()


def test_the_report_at_the_end_of_a_run(finished: Finished) -> None:
    page = (finished.folder / "report" / "report.html").read_text()
    assert "Not shown" not in page
    headings = [line[4:-5] for line in page.splitlines() if line.startswith("<h2>")]
    assert headings == [
        "Against plain training",
        "Samples of lowest weight",
        "Training",
        "How far can the probabilities be trusted?",
        "Weights",
        "Classes",
        "Features",
        "Images that are nearly the same",
    ]
    assert page.count("data:image/webp;base64,") == 32
    assert f"cwerm run {finished.folder}/job.yaml method=erm" in page
    assert "and from the coreset (rings)" in page


def test_the_run_folder(finished: Finished) -> None:
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert summary["method"] == "cw-erm"
    assert summary["reused"] == []
    assert list(summary["seconds"]) == STAGES
    assert (summary["resources"]["workers"], summary["resources"]["device"]) == (1, "CPU")
    assert "small: 1 worker of 1 CPU on " in finished.answer.out
    assert 0 <= summary["test_accuracy"] <= 1
    job = yaml.safe_load((finished.folder / "job.yaml").read_text())
    assert job["coreset"] == {
        **job["coreset"],
        "ratio": 0.1,
        "method": "auto",
        "meta": "hold_out",
        "meta_per_class": 2,
    }
    weights = pq.read_table(finished.folder / "weights.parquet")
    assert sorted(weights.column("id").to_pylist()) == list(range(400))
    assert np.mean(weights.column("weight").to_numpy()) == pytest.approx(1, abs=1e-5)


def test_a_second_run_reuses_everything(
    cwerm: Cwerm, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads manifests, what the summary tells of, and nothing twice."""
    artifacts = sorted(finished.store.glob("artifacts/*/*/*"))
    before = json.loads((finished.folder / "summary.json").read_text())
    reads = Counter[str]()
    whole = LocalStorage.read_bytes
    monkeypatch.setattr(
        LocalStorage, "read_bytes", lambda self, path: (reads.update([path]), whole(self, path))[1]
    )
    answer = cwerm("run", finished.job)
    answer.succeeded()
    assert set(reads.values()) == {1}
    tables = {Path(path).name.partition("-")[0] for path in reads if path.endswith(".parquet")}
    assert tables == {"labels", "rejects", "weights"}
    assert answer.out.count("  reused") >= len(STAGES)
    assert sorted(finished.store.glob("artifacts/*/*/*")) == artifacts
    after = json.loads((finished.folder / "summary.json").read_text())
    assert after["reused"] == STAGES
    assert after["test_accuracy"] == before["test_accuracy"]
    assert after["artifacts"] == before["artifacts"]


def test_a_copy_of_the_data_elsewhere_reuses_everything(
    cwerm: Cwerm, finished: Finished, small_data: Path, tmp_path: Path
) -> None:
    """With other times, as cp, rsync or git make it."""
    copied = tmp_path / "another name"
    shutil.copytree(small_data, copied, copy_function=shutil.copyfile)
    for path in copied.iterdir():
        os.utime(path, (1, 1))
    cwerm("run", finished.job, "name=copied", f"data.source={copied}").succeeded()
    summary = json.loads((finished.store / "runs" / "copied" / "summary.json").read_text())
    assert summary["reused"] == STAGES
    shutil.rmtree(finished.store / "runs" / "copied")


def test_a_changed_later_section_reuses_the_earlier_stages(
    cwerm: Cwerm, finished: Finished, ray_session: None
) -> None:
    answer = cwerm("stage", "broadcast", finished.job, "broadcast.neighbors=3")
    answer.succeeded()
    line, place = answer.out.splitlines()
    assert line.startswith("broadcast ")
    assert "reused" not in line
    manifest = json.loads(Path(place, "manifest.json").read_text())
    parts = [pq.read_table(Path(place, part["path"])) for part in manifest["tables"]["weights"]]
    assert sum(part.num_rows for part in parts) == 400
    again = cwerm("stage", "broadcast", finished.job, "broadcast.neighbors=3")
    again.succeeded()
    assert "reused" in again.out
    assert place in again.out
    # the earlier stages' artifacts were found, not made again
    assert len(list(finished.store.glob("artifacts/reweight/*"))) == 1


@pytest.mark.slow
def test_stage_by_stage_equals_a_run(finished: Finished, tmp_path: Path) -> None:
    for stage in STAGES:
        answer = process("stage", stage, finished.job, "--storage", tmp_path / "store")
        answer.succeeded()
        place = answer.out.splitlines()[-1]
        assert (Path(place) / "manifest.json").is_file()
    answer = process("run", finished.job, "--storage", tmp_path / "store")
    answer.succeeded()
    summary = json.loads((tmp_path / "store" / "runs" / "small" / "summary.json").read_text())
    assert summary["reused"] == STAGES
    one, other = load_weights(str(finished.folder)), load_weights(f"{tmp_path}/store/runs/small")
    assert one.equals(other)


@pytest.mark.slow
def test_erm_and_a_failed_run_of_the_same_name(finished: Finished, tmp_path: Path) -> None:
    """A run that fails in its last stage leaves the earlier run of its name as it was."""
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    before = {p: p.read_bytes() for p in (store / "runs" / "small").iterdir() if p.is_file()}
    answer = process("run", finished.job, "--storage", store, "train.lr=1e30")
    answer.refused("train.lr", "lower")
    assert {
        p: p.read_bytes() for p in (store / "runs" / "small").iterdir() if p.is_file()
    } == before

    answer = process("run", finished.job, "--storage", store, "method=erm")
    answer.succeeded()
    assert words_of_stage_lines(answer.out) == ["ingest", "train"]
    assert {
        p: p.read_bytes() for p in (store / "runs" / "small").iterdir() if p.is_file()
    } == before
    folder = store / "runs" / "small-erm-seed0"
    assert json.loads((folder / "summary.json").read_text())["method"] == "erm"
    assert "runs/small holds cw-erm, seed 0: this run goes to runs/small-erm-seed0" in answer.out
    for command in (["export", folder, "--to", tmp_path / "w.csv"], ["inspect", folder]):
        process(*command).refused(str(folder), "no weights.parquet", "cw-erm")
    assert not (tmp_path / "w.csv").exists()


@pytest.mark.slow
def test_more_workers_than_cpus_share_them(finished: Finished, tmp_path: Path) -> None:
    import os

    workers = max(2, os.cpu_count() or 2) + 1
    answer = process(
        "run", finished.job, "--storage", tmp_path / "store", f"resources.workers={workers}"
    )
    answer.succeeded()
    assert load_weights(str(finished.folder)).equals(load_weights(f"{tmp_path}/store/runs/small"))


def test_doctor(cwerm: Cwerm, ray_session: None, tmp_path: Path) -> None:
    answer = cwerm("doctor", "--storage", tmp_path / "store")
    answer.succeeded()
    for fact in ("Python 3", "torch ", "ray ", "faiss", "GiB memory free", "GPUs", "1 node(s)"):
        assert fact in answer.out
    assert f"storage {tmp_path}/store: can be written" in answer.out.replace("\n", "")
    (tmp_path / "file").write_text("")
    answer = cwerm("doctor", "--storage", tmp_path / "file" / "store")
    assert answer.code == 1
    assert answer.err == ""
    assert "problem" in answer.out
    assert "can't be written" in answer.out
