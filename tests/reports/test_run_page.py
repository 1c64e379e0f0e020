"""Pages of runs, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.reports.report import add_report, report
from cwerm.reports.run import figures
from cwerm.reports.run.samples import Samples, class_rows
from cwerm.runs.folder import RunResult
from cwerm.store.schema import table_schema
from cwerm.store.storage import open_storage
from reports.made_up import (
    REASON,
    a_description,
    a_folder,
    a_row,
    check_picture,
    leave,
)


def a_run(store: Path, method: str = "cw-erm", classes: int = 12) -> tuple[str, np.ndarray]:
    """A finished run in a store, its weights."""
    random = np.random.default_rng(0)
    folder = store / "runs" / "quick"
    train = store / "artifacts" / "train" / "key" / "attempt"
    folder.mkdir(parents=True)
    train.mkdir(parents=True)
    history = [
        {"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": 0.5 + 0.04 * e}
        | ({"test_loss": 0.9 / (e + 1), "test_accuracy": 0.5 + 0.03 * e} if e % 2 else {})
        for e in range(10)
    ]
    history[-1]["test_reliability"] = [[40, 0.4, 0.5], [60, 0.95, 0.9]]
    (train / "history.json").write_text(json.dumps(history))
    weights = random.gamma(4, 0.25, 500).astype(np.float32)
    columns = {"id": np.arange(500), "weight": weights}
    fields = table_schema("weights")
    table = pa.table(
        [pa.array(columns.get(f.name, np.zeros(500))).cast(f.type) for f in fields], fields
    )
    uris = {"train/history.json": "/former/store/artifacts/train/key/attempt/history.json"}
    if method == "cw-erm":
        pq.write_table(table, folder / "weights.parquet")
        uris["weights"] = "/former/store/artifacts/broadcast/key/attempt/weights.parquet"
    summary = {
        "name": "quick",
        "method": method,
        "control": "none",
        "seed": 0,
        "test_accuracy": 0.8123,
        "test_accuracy_top5": None,
        "train_accuracy": 0.9,
        "test_expected_calibration_error": 0.05,
        "test_per_class_accuracy": [*np.linspace(0.5, 0.99, classes - 1), None],
        "class_names": [f"<class {c}>" for c in range(classes)],
        "num_samples": 500,
        "num_test_samples": 100,
        "num_rejects": 0,
        "seconds": {"ingest": 4.0, "train": 30.5},
        "seconds_this_run": 40.0,
        "reused": ["ingest"],
        "artifacts": uris,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder), weights


def test_a_runs_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, weights = a_run(tmp_path)
    written = report(folder)
    names = [
        f"{name}.{kind}"
        for name in ("training", "reliability", "weights")
        for kind in ("png", "svg")
    ]
    assert [Path(path).name for path in written] == [*names, "report.html"]
    assert {Path(path).parent for path in written} == {Path(folder, "report")}
    page = Path(written[-1]).read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert '<td>test accuracy</td><td class="number">81.23 %</td>' in page
    assert "<bdi>&lt;class 11&gt;</bdi></td><td>no test image" in page
    assert "<class" not in page
    assert "Not shown: summary.json is damaged (artifacts.images is no place in a store)" in page
    for name in names[::2]:
        check_picture(Path(folder, "report", name))
    assert "4.0 s, reused" in capsys.readouterr().out
    bars = figures.weight_histogram(weights).axes[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == len(weights)


def test_a_run_without_weights_has_no_histogram(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path, "erm")
    names = {Path(path).name for path in report(folder)}
    assert "training.png" in names
    assert "weights.png" not in names


def test_a_report_that_cannot_be_made_leaves_the_run_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = a_run(tmp_path)
    summary = json.loads(Path(folder, "summary.json").read_text())
    add_report(RunResult(folder, summary), S3())
    page = Path(folder, "report", "report.html")
    assert f"report       {page}" in capsys.readouterr().out
    history = tmp_path / "artifacts" / "train" / "key" / "attempt" / "history.json"
    history.write_text("[{}]")
    add_report(RunResult(folder, summary), S3())
    assert f"report       {page}" in capsys.readouterr().out, "it is there"
    page.unlink()
    add_report(RunResult(folder, summary), S3())
    assert "no report: " in capsys.readouterr().out
    assert not page.exists()
    add_report(RunResult(folder, summary | {"num_samples": 1_000_000}), S3())
    assert f"cwerm report {folder}" in capsys.readouterr().out


def samples() -> Samples:
    label = np.array([0, 0, 0, 1, 1, 2])
    suggested = np.array([0, 1, 1, 1, 0, 2])
    return Samples(
        ["a", "b", "c", "d"],
        None,
        label,
        np.array([1.0, 0.0, 0.2, 1.5, 0.1, 2.0]),
        np.array([0.9, 0.01, 0.2, 0.99, 0.02, 0.8]),
        suggested,
        removed=np.arange(6) == 4,
        clean=np.array([0, 1, 0, 1, 0, 2]),
    )


def test_samples_that_are_removed_are_not_counted() -> None:
    found = samples()
    assert found.lowest.tolist() == [1, 2, 5, 0, 3]
    assert found.matrix().counts == [[1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    rows = found.reliability()
    assert rows is not None
    assert sum(count for count, _, _ in rows) == 5
    assert sum(count * share for count, _, share in rows) == 4


def test_classes_have_their_weights_and_the_lowest_comes_first() -> None:
    accuracy = {"a": 0.9, "b": 0.5, "c": None, "d": 0.7}
    rows, end = class_rows(accuracy, samples())
    assert [row.name for row in rows] == ["b", "d", "a", "c"]
    assert [row.images for row in rows] == [1, 0, 3, 1]
    assert [row.suspects for row in rows] == [0, 0, 2, 0]
    assert end == pytest.approx(2.1)
    assert rows[1].box is None
    assert rows[2].weight == pytest.approx(0.4)
    assert rows[2].box is not None
    assert rows[2].box[2] == pytest.approx(100 * 0.2 / end)


def test_a_spike_does_not_flatten_the_curve() -> None:
    calm = [2.3, 1.5, 1.2, 1.0, 0.9, 0.8]
    assert figures.upper_end(calm) is None
    end = figures.upper_end([40.0, 35.0, *calm])
    assert end is not None
    assert 2.3 < end < 3
    history = [
        {"epoch": e, "train_loss": loss, "test_loss": loss, "train_accuracy": 0.5}
        for e, loss in enumerate([40.0, *calm])
    ]
    loss, _ = figures.training_curve(history).axes
    assert loss.get_ylim()[1] < 3
    assert [text.get_text() for text in loss.texts] == ["up to 40"]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^.*: neither sweep\.json nor summary\.json; give"):
        report(str(tmp_path))
    with pytest.raises(UserError, match="neither sweep"):
        report(str(tmp_path / "nowhere"))
    (tmp_path / "sweep.json").write_text(json.dumps(a_description(["method"])))
    with pytest.raises(UserError, match=r"no results\.parquet yet; let `cwerm sweep` finish"):
        report(str(tmp_path))
    rows = [a_row({}, seed, None, status="failed", error=REASON) for seed in range(2)]
    leave(open_storage(str(tmp_path)), rows, a_description(["method"]))
    with pytest.raises(
        UserError, match=r"none of 2 trials is done; the first says: train\.lr: "
    ) as e:
        report(str(tmp_path))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "report").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "backbones")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"^.*/file/table\.md: can't be written \(.*\); choose another"
    ):
        report(folder, tmp_path / "file")


def test_a_run_whose_history_is_gone(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path)
    (tmp_path / "artifacts" / "train" / "key" / "attempt" / "history.json").unlink()
    with pytest.raises(
        UserError, match=r"^.*/quick: its training history is no longer in the store"
    ):
        report(folder)


def test_the_curve_is_that_of_the_validation_images() -> None:
    history = [
        {"epoch": epoch}
        | {
            f"{split}_{name}": 0.5
            for split in ("train", "validation")
            for name in ("loss", "accuracy")
        }
        for epoch in range(3)
    ]
    history[-1] |= {"test_loss": 0.4, "test_accuracy": 0.6}
    for axis in figures.training_curve(history).axes:
        lines = {str(line.get_label()): len(line.get_xydata()) for line in axis.lines}
        assert lines == {"training": 3, "validation": 3, "test": 1}
