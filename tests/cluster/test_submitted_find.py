"""The README's way from a folder to predictions: on this disk, and in a bucket through a real Ray head."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli.commands import Answer, start
from object_store import s3_prefix  # noqa: F401

from cluster.head import TOKEN, Head, ray_head
from cwerm.cli import main
from cwerm.store.storage import open_storage

pytestmark = pytest.mark.timeout(1500)  # of six commands each way

CLASSES = {0: "shirt", 1: "trouser", 3: "dress", 5: "sandal", 8: "bag", 9: "boot"}
COUNT, WRONG, NEW = 240, 60, 20
SHORT = ("train.model=small_cnn", "train.epochs=2", "train.batch_size=32")


@pytest.fixture(scope="module")
def folders(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of six classes, a quarter of them in another one's folder, and new ones."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", COUNT), ("test", NEW)):
        rows = pq.read_table(small_data / f"{split}.parquet").to_pylist()
        rows = [row for row in rows if row["label"] in CLASSES][:count]
        moved = np.zeros(len(rows), np.int64)
        if split == "train":
            moved[random.choice(len(rows), WRONG, replace=False)] = random.integers(1, 6, WRONG)
        for number, (row, steps) in enumerate(zip(rows, moved.tolist(), strict=True)):
            given = [*CLASSES][([*CLASSES].index(row["label"]) + steps) % 6]
            below = f"clothes/{CLASSES[given]}" if split == "train" else "new"
            place = root / below / f"{CLASSES[row['label']]}-{number:03d}.webp"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(row["image"]["bytes"])
    return root


@pytest.fixture
def head(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:  # noqa: F811
    """Its processes know the bucket's server."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with ray_head(cpus=4) as started:
        yield started


def in_folder(folder: Path) -> Callable[..., Answer]:
    """Run commands there."""

    def run(*words: str) -> Answer:
        with start(*words, cwd=folder) as running:
            out, err = running.communicate(timeout=500)
        answer = Answer(running.returncode, out, err)
        answer.succeeded()
        return answer

    return run


def qualities(folder: Path) -> dict[str, float]:
    with (folder / "suspects" / "suspects.csv").open() as file:
        return {row["path"]: float(row["quality"]) for row in csv.DictReader(file)}


def trained_and_used(run: Callable[..., Answer], folder: Path, store: str, new: str) -> None:
    """What comes of the runs that the commands have left in the store."""
    plain = f"{store}/runs/find-erm-seed0"
    run("predict", f"{store}/runs/find", new)
    with (folder / "predictions.csv").open() as file:
        assert len([*csv.DictReader(file)]) == NEW
    told = run("compare", f"{store}/runs/find", plain).out
    assert "baseline" in told
    assert any((folder / "comparison").iterdir())
    summaries = [
        json.loads(open_storage(place).read_bytes("summary.json"))
        for place in (f"{store}/runs/find", plain)
    ]
    assert [one["method"] for one in summaries] == ["cw-erm", "erm"]
    assert summaries[0]["targets"] in ("soft", "relabel")
    assert {one["num_samples"] + one["num_test_samples"] for one in summaries} == {COUNT}


@pytest.mark.slow
def test_in_a_bucket_as_on_this_disk(
    folders: Path,
    s3_prefix: str,  # noqa: F811
    head: Head,
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    run = in_folder(here)
    run("find", str(folders / "clothes"))
    for more in ((), ("method=erm",)):
        run("run", "suspects/job.yaml", *SHORT, *more)
    trained_and_used(run, here, str(here / "cwerm-store"), str(folders / "new"))

    bucket = open_storage(s3_prefix)
    for path in folders.rglob("*.webp"):
        bucket.write_bytes(path.relative_to(folders).as_posix(), path.read_bytes())
    run, address = in_folder(there), ("--address", head.dashboard)
    store = f"{s3_prefix}/store"
    told = run("submit", f"{s3_prefix}/clothes", "--find", *address, "--storage", store).out
    assert "labels look wrong" in told
    names = {path.name for path in (there / "suspects").iterdir()}
    assert names == {path.name for path in (here / "suspects").iterdir()}
    expected = qualities(here)
    found = qualities(there)
    assert found.keys() == expected.keys()
    assert [*found.values()] == pytest.approx([*expected.values()], abs=1e-6)
    for more in ((), ("method=erm",)):
        told = run("submit", "suspects/job.yaml", *SHORT, *more, *address).out
        if not more:
            assert "were embedded before" in told
    trained_and_used(run, there, store, f"{s3_prefix}/new")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("s3://b/x", "--find", "--sweep", "tune/ratio.yaml"), "--find: "),
        (("s3://b/x", "--find", "method=erm"), "method: "),
        (("x.csv", "--find", "features.source=x.npy"), "--find: "),
        (("x.yaml", "--to", "there"), "--to: "),
        (("images", "--find"), "data.source: 'images' is a path on this machine"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["submit", *words, "--address", "http://127.0.0.1:9", "--storage", "s3://b/y"])
    assert left.value.code == 2
    assert f"cwerm: {told}" in capsys.readouterr().err
