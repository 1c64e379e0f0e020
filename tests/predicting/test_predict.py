"""`predict`: new images get the classes that the run's model gives them, on workers as here."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from cwerm import pipeline
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.predicting import predict as predicting
from cwerm.predicting.predict import predict
from cwerm.runs.summary import load_summary
from cwerm.terminal import console


@pytest.fixture(scope="module")
def run(ray_session: None, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a short training."""
    tree = {
        "name": "short",
        "method": "erm",
        "storage": str(tmp_path_factory.mktemp("predict")),
        "data": {"source": str(small_data)},
        "train": {"model": "resnet20", "epochs": 3, "batch_size": 50, "lr": 0.05},
        "resources": {"workers": 1},
    }
    return pipeline.run(parse_job(tree)).folder


@pytest.fixture(scope="module")
def images(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as files, in folders that say nothing of their classes."""
    folder = tmp_path_factory.mktemp("new")
    for number, row in enumerate(pq.read_table(small_data / "test.parquet").to_pylist()):
        place = folder / f"box {number % 3}" / f"{number:03d}-{row['label']}.webp"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(row["image"]["bytes"])
    (folder / "notes.txt").write_text("of a person")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_classes_are_those_of_the_training(run: str, images: Path, tmp_path: Path) -> None:
    """The accuracy over the test images is what the summary says, to the last image."""
    said: list[str] = []
    with console.told_to(said.append):
        found = predict(run, str(images), tmp_path / "p.csv")
    rows, summary = rows_of(tmp_path / "p.csv"), load_summary(run)
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    names = summary["class_names"]
    right = [row["label"] == names[int(row["path"][-6])] for row in rows]
    assert len(rows) == found.num_images == summary["num_test_samples"] == 100
    assert np.mean(right) == pytest.approx(summary["test_accuracy"], abs=1e-9)
    assert found.counts.total() == 100
    assert "left out: 1 x .txt" in said


def test_the_probabilities_are_those_of_plain_timm(run: str, images: Path, tmp_path: Path) -> None:
    predict(run, str(images), tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    store, key = Path(run).parent.parent, load_summary(run)["artifacts"]["model"].split("/")[-2:]
    (file,) = store.rglob(f"{key[0]}/{key[1]}") if len(key) > 1 else store.rglob(key[0])
    with safe_open(str(file), "pt") as opened:
        about = json.loads(opened.metadata()["cwerm"])
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    model = timm.create_model(about["model"], num_classes=10).eval()
    model.load_state_dict(state)
    paths = table.column("path").to_pylist()
    pixels = np.stack([np.asarray(Image.open(images / path).convert("RGB")) for path in paths])
    inputs = (pixels / 255 - np.array(about["mean"])) / np.array(about["std"])
    with torch.inference_mode():
        logits = model(torch.tensor(inputs.transpose(0, 3, 1, 2), dtype=torch.float32))
    expected = logits.softmax(dim=1).numpy()
    columns = [table.column(f"p_{name}").to_numpy() for name in about["class_names"]]
    np.testing.assert_allclose(np.stack(columns, axis=1), expected, atol=1e-5)
    np.testing.assert_allclose(
        table.column("probability").to_numpy(), expected.max(axis=1), atol=1e-5
    )


def test_workers_give_the_same_file(
    run: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(run, str(images), tmp_path / "here.csv")
    monkeypatch.setattr(predicting, "HERE", 0)
    monkeypatch.setattr(predicting, "PART", 17)
    predict(run, str(images), tmp_path / "there.csv", options={"resources.workers": 2})
    here, there = rows_of(tmp_path / "here.csv"), rows_of(tmp_path / "there.csv")
    assert [row["path"] for row in here] == [row["path"] for row in there]
    assert [row["label"] for row in here] == [row["label"] for row in there]
    for mine, other in zip(here, there, strict=True):
        assert float(mine["probability"]) == pytest.approx(float(other["probability"]), abs=1e-5)


def test_below_the_threshold_no_class_is_named(run: str, images: Path, tmp_path: Path) -> None:
    found = predict(run, str(images), tmp_path / "p.csv", threshold=0.6)
    rows = rows_of(tmp_path / "p.csv")
    assert 0 < found.num_abstained < 100
    for row in rows:
        assert (row["label"] == "") == (float(row["probability"]) < 0.6)


def test_what_can_not_be_read_has_its_reason(run: str, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images / "box 0", folder)
    (folder / "a.png").write_bytes(b"no image")
    (folder / "b.png").write_bytes(b"")
    (folder / "c.png").symlink_to(tmp_path / "nowhere")
    said: list[str] = []
    with console.told_to(said.append):
        found = predict(run, str(folder), tmp_path / "p.csv")
    rows = {row["path"]: row for row in rows_of(tmp_path / "p.csv")}
    for name, reason in (("a.png", "no"), ("b.png", "empty file"), ("c.png", "link to nothing")):
        assert reason in rows[name]["error"]
        assert rows[name]["label"] == rows[name]["probability"] == ""
    assert len(found.unreadable) == 3
    assert any(line.startswith("3 image(s) can't be read, such as 'a.png'") for line in said)
    assert sum(row["error"] == "" for row in rows.values()) == len(rows) - 3


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("one bad image", r"PATH: 'bad\.png' can't be read \(.*\); nothing is written"),
        ("nothing there", r"PATH: '.*none' does not exist"),
        ("no images", r"PATH: no images below"),
        ("suffix", r"--to: '.*p\.txt' should end in \.csv or \.parquet"),
        ("no run", r"no summary\.json"),
        ("model gone", r"its model is no longer in the store"),
        (
            "a key",
            r"train\.lr=3: `predict` takes keys of resources and s3, and features.weights, alone",
        ),
        ("to nowhere", r"--to: '.*p\.csv' can't be written"),
    ],
)
def test_a_mistake_is_one_line(
    case: str, told: str, run: str, images: Path, tmp_path: Path
) -> None:
    source, to, overrides = images / "box 0", tmp_path / "p.csv", []
    if case == "one bad image":
        source = tmp_path / "bad.png"
        source.write_bytes(b"no image")
    if case == "nothing there":
        source = tmp_path / "none"
    if case == "no images":
        source = tmp_path / "texts"
        source.mkdir()
        (source / "a.txt").write_text("")
    if case == "suffix":
        to = tmp_path / "p.txt"
    if case == "no run":
        run = str(tmp_path)
    if case == "model gone":
        store = tmp_path / "store"
        shutil.copytree(Path(run).parent.parent, store)
        shutil.rmtree(store / "artifacts" / "train")
        run = str(store / "runs" / "short")
    if case == "a key":
        overrides = ["train.lr=3"]
    if case == "to nowhere":
        to = tmp_path / "no folder" / "p.csv"
    if case != "to nowhere":
        to.write_text("of before")
    with pytest.raises(UserError, match=told) as refused:
        predict(run, str(source), to, overrides=overrides)
    assert "\n" not in str(refused.value)
    if case != "to nowhere":
        assert to.read_text() == "of before", "what was there stays"
        assert [path.name for path in tmp_path.glob(".*")] == []
