"""What people do with the weights of a run: look at the lowest, take them elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import Answer, Finished
from PIL import Image

from cwerm import load_weights

Cwerm = Callable[..., Answer]


def test_inspect(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    answer = cwerm("inspect", finished.folder, "--lowest", "7", "--to", tmp_path / "low.png")
    answer.succeeded()
    weights = load_weights(str(finished.folder))
    lowest = sorted(weights.to_pylist(), key=lambda row: (row["weight"], row["id"]))[:7]
    rows = [line.split("│")[1:-1] for line in answer.out.splitlines() if "│" in line]
    shown = [row[0].strip() for row in rows if row[0].strip()]
    assert shown == [str(row["id"]) for row in lowest]
    with Image.open(tmp_path / "low.png") as sheet:
        assert np.asarray(sheet).std() > 20


def test_inspect_of_a_store_that_moved_and_a_source_that_changed(
    cwerm: Cwerm, finished: Finished, tmp_path: Path
) -> None:
    store = tmp_path / "elsewhere"
    shutil.copytree(finished.store, store)
    cwerm("inspect", store / "runs" / "small", "--to", tmp_path / "low.png").succeeded()
    shutil.rmtree(store / "artifacts" / "ingest")
    answer = cwerm("inspect", store / "runs" / "small", "--to", tmp_path / "low.png")
    answer.refused("images are no longer in the store", "run the job again")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "npy"])
def test_export(cwerm: Cwerm, finished: Finished, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"weights.{suffix}"
    answer = cwerm("export", finished.folder, "--to", target)
    answer.succeeded()
    assert answer.out == f"400 weights in {target}\n"
    weights = load_weights(str(finished.folder))
    expected = dict(
        zip(weights.column("id").to_pylist(), weights.column("weight").to_pylist(), strict=True)
    )
    if suffix == "npy":
        found = dict(enumerate(np.load(target).tolist()))
    else:
        read = pq.read_table if suffix == "parquet" else pyarrow.csv.read_csv
        table = read(target)
        found = dict(
            zip(table.column("id").to_pylist(), table.column("weight").to_pylist(), strict=True)
        )
        row = table.slice(0, 1).to_pylist()[0]
        names = json.loads((finished.folder / "summary.json").read_text())["class_names"]
        assert row["label_name"] == names[row["label"]]
        assert row["path"].startswith("train-images[")
    assert found == pytest.approx(expected, rel=1e-6)


def test_export_and_inspect_refuse(cwerm: Cwerm, finished: Finished, tmp_path: Path) -> None:
    folder, csv, sheet = finished.folder, tmp_path / "w.csv", tmp_path / "l.png"
    cwerm("export", tmp_path, "--to", csv).refused(
        str(tmp_path), "give the folder of a finished run"
    )
    cwerm("export", tmp_path / "none", "--to", csv).refused("none", "give the folder")
    cwerm("export", finished.job, "--to", csv).refused("job.yaml", "give the folder")
    cwerm("export", folder, "--to", tmp_path / "w.txt").refused("w.txt", ".parquet, .csv or .npy")
    cwerm("export", folder, "--to", tmp_path / "none" / "w.csv").refused(
        "none/w.csv", "another place"
    )
    cwerm("export", folder, "--to", finished.job / "w.csv").refused("can't be written")
    cwerm("export", "gs://b/runs/x", "--to", csv).refused("gs", "s3://")
    cwerm("inspect", tmp_path, "--to", sheet).refused(str(tmp_path), "give the folder")
    cwerm("inspect", folder, "--to", tmp_path / "l.jpg").refused("l.jpg", ".png")
    cwerm("inspect", folder, "--to", tmp_path / "none" / "l.png").refused("none/l.png")
    assert list(tmp_path.iterdir()) == []
