"""Pages of runs, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.errors import UserError
from cwerm.reports import run_page
from cwerm.reports.report import report
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
        f"{name}.{kind}" for name in ("training", "weights", "classes") for kind in ("png", "svg")
    ]
    assert written == [f"{folder}/report/{name}" for name in [*names, "report.html"]]
    page = Path(written[-1]).read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert '<td class="text">test accuracy</td><td>81.23 %</td>' in page
    assert '<td class="text">&lt;class 11&gt;</td><td>-</td>' in page
    for name in names[::2]:
        check_picture(Path(folder, "report", name))
    assert "4.0 s, reused" in capsys.readouterr().out
    bars = run_page.weight_histogram(weights).axes[0].containers[0]
    assert sum(bar.get_height() for bar in bars) == len(weights)


def test_a_run_without_weights_has_no_histogram(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path, "erm")
    names = {Path(path).name for path in report(folder)}
    assert "training.png" in names
    assert "weights.png" not in names


def test_of_many_classes_the_figure_shows_the_lowest(tmp_path: Path) -> None:
    folder, _ = a_run(tmp_path, classes=101)
    caption, figure = run_page.read_run(folder).figures()["classes"]
    assert "the 30 lowest of 100" in caption
    (axis,) = figure.axes
    values = [bar.get_width() for bar in axis.containers[0]]
    np.testing.assert_allclose(values, 100 * np.linspace(0.5, 0.99, 100)[:30])


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
    for axis in run_page.training_curve(history).axes:
        lines = {str(line.get_label()): len(line.get_xydata()) for line in axis.lines}
        assert lines == {"training": 3, "validation": 3, "test": 1}
