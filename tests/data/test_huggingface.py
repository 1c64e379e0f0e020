"""Data sets as Hugging Face's own library saves them, and as it has them in its cache."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pytest
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.parquet.parquet import Parquet
from object_store import s3_prefix  # noqa: F401
from PIL import Image

from cwerm.data import Sample, Source, open_source
from cwerm.errors import UserError
from cwerm.store.storage import open_storage

FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog"]),
    "score": datasets.Value("float32"),
    "taken": datasets.Value("date32"),
    "tags": datasets.List(datasets.Value("string")),
}
DAY = datetime.date(2020, 2, 29)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def rows(first: int, count: int) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in numbers],
        "label": [i % 2 for i in numbers],
        "score": [i / 2 for i in numbers],
        "taken": [DAY for _ in numbers],
        "tags": [["x"] for _ in numbers],
    }


def made(first: int = 0, count: int = 8, **changed: Any) -> datasets.Dataset:
    features = datasets.Features(FEATURES | changed)
    return datasets.Dataset.from_dict(rows(first, count), features=features)


def save(what: Any, place: Path, **how: Any) -> Path:
    what.save_to_disk(str(place), **how)
    return place


@pytest.fixture(autouse=True)
def no_bars() -> None:
    datasets.disable_progress_bars()


def read_all(source: Source, split: str = "train", rows: int = 3) -> list[Sample]:
    worker = pickle.loads(pickle.dumps(source))
    return [sample for chunk in source.chunks(split, rows) for sample in worker.read(chunk)]


def fails(place: Path, *words: str, **how: Any) -> None:
    with pytest.raises(UserError) as refused:
        open_source(str(place), **how)
    told = str(refused.value)
    assert told.startswith("data.")
    assert "\n" not in told
    for word in words:
        assert word in told


def test_a_saved_data_set_with_splits(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": made(0, 250), "validation": made(250, 4)})
    source = open_source(
        str(save(both, tmp_path / "set", num_shards={"train": 2, "validation": 1}))
    )
    train, test = read_all(source, rows=60), read_all(source, "test")
    assert [sample.image for sample in train] == [png(i) for i in range(250)]
    assert [sample.label for sample in train[:3]] == ["cat", "dog", "cat"]
    assert [sample.path for sample in train] == [f"{i}.png" for i in range(250)]
    assert train[249].place == "train/data-00001-of-00002.arrow[124]"
    assert train[3].extra == {"score": 1.5, "taken": DAY}
    assert [sample.path for sample in test] == [f"{i}.png" for i in range(250, 254)]
    assert source.class_names() == ["cat", "dog"]
    assert source.extra_columns() == {"score": pa.float32(), "taken": pa.date32()}
    assert any("tags" in line for line in source.remarks())
    assert max(chunk.size for chunk in source.chunks("train", 60)) <= 100


def test_a_saved_data_set_without_splits_is_all_for_training(tmp_path: Path) -> None:
    source = open_source(str(save(made().select([6, 1]), tmp_path / "set")))
    assert [sample.path for sample in read_all(source)] == ["6.png", "1.png"]
    assert source.chunks("test", 10) == []


def test_splits_that_were_saved_one_by_one(tmp_path: Path) -> None:
    save(made(0, 5), tmp_path / "training")
    save(made(5, 2), tmp_path / "test")
    source = open_source(str(tmp_path))
    assert (len(read_all(source)), len(read_all(source, "test"))) == (5, 2)


def test_other_splits_are_told_and_left_out(tmp_path: Path) -> None:
    three = datasets.DatasetDict({"train": made(0, 4), "test": made(4, 2), "extra": made(6, 2)})
    source = open_source(str(save(three, tmp_path / "set")))
    assert len(read_all(source)) == 4
    assert any("not used: extra" in line for line in source.remarks())


def test_a_test_split_without_labels_gives_way(tmp_path: Path) -> None:
    hidden = made(4, 2).map(lambda row: {"label": -1})
    three = {"train": made(0, 4), "test": hidden, "validation": made(6, 3)}
    source = open_source(str(save(datasets.DatasetDict(three), tmp_path / "set")))
    assert len(read_all(source, "test")) == 3


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    save(made(), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    save(made(1), tmp_path / "c")
    first, copy, other = (
        open_source(str(tmp_path / name)).fingerprint() for name in ("a", "b", "c")
    )
    assert first == copy != other


def test_images_that_share_a_path_are_named_by_their_rows(tmp_path: Path) -> None:
    twice = datasets.concatenate_datasets([made(0, 2), made(0, 2)])
    source = open_source(str(save(twice, tmp_path / "set")))
    assert len({sample.path for sample in read_all(source)}) == 4
    assert any("rows name them" in line for line in source.remarks())


def test_pixels_as_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    features = datasets.Features(
        {"image": datasets.Array3D((6, 5, 3), "uint8"), "label": datasets.Value("string")}
    )
    columns = {"image": list(pixels), "label": ["a", "b", "a", "b"]}
    source = open_source(
        str(save(datasets.Dataset.from_dict(columns, features=features), tmp_path / "set"))
    )
    for sample, expected in zip(read_all(source), pixels, strict=True):
        np.testing.assert_array_equal(sample.image, expected)


def test_the_only_columns_that_can_be_meant_are_taken(tmp_path: Path) -> None:
    renamed = made().rename_columns({"image": "img", "label": "kind"})
    source = open_source(str(save(renamed, tmp_path / "set")))
    assert [sample.label for sample in read_all(source)[:2]] == ["cat", "dog"]
    assert "columns img and kind" in source.remarks()


def test_of_several_columns_of_labels_the_job_chooses(tmp_path: Path) -> None:
    coarse = made().rename_column("label", "fine").add_column("coarse", ["pet"] * 8)
    coarse = coarse.cast_column("coarse", datasets.ClassLabel(names=["pet"]))
    place = save(coarse, tmp_path / "set")
    fails(place, "several columns of labels (fine, coarse)", "set data.label_column")
    source = open_source(str(place), label_column="fine")
    assert [sample.label for sample in read_all(source)[:2]] == ["cat", "dog"]


def test_without_a_column_of_images(tmp_path: Path) -> None:
    place = save(made().remove_columns("image"), tmp_path / "set")
    fails(place, "has no column of images", "its columns are label, score, taken, tags")
    fails(place, "has no column for the image", image_column="picture")


def test_a_shard_cut_short(tmp_path: Path) -> None:
    place = save(made(0, 150), tmp_path / "set")
    (shard,) = place.glob("*.arrow")
    whole = shard.read_bytes()
    for length in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 300, 9, 0):
        shard.write_bytes(whole[:length])
        fails(place, shard.name, "is not a readable Arrow shard")


def test_damaged_offsets_are_told_and_not_followed(tmp_path: Path) -> None:
    place = save(made(0, 150), tmp_path / "set")
    (shard,) = place.glob("*.arrow")
    whole = bytearray(shard.read_bytes())
    source = open_source(str(place))
    start = source._batches[shard.name][0].start  # type: ignore[attr-defined]
    body = start + 8 + int.from_bytes(whole[start + 4 : start + 8], "little")
    whole[body : body + 400] = b"\x7f" * 400
    shard.write_bytes(whole)
    with pytest.raises(UserError, match="can't be read"):
        read_all(source)


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "x/y.arrow", ".hidden", 7])
def test_names_that_leave_the_folder(tmp_path: Path, name: Any) -> None:
    place = save(made(), tmp_path / "set")
    (tmp_path / "other.arrow").write_bytes(b"secret")
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name}]}))
    fails(place, "state.json", "save the data set again")


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    place = save(made(), tmp_path / "set", num_shards=2)
    (place / "data-00001-of-00002.arrow").unlink()
    fails(place, "data-00001-of-00002.arrow", "no such file")


def test_an_image_outside_of_the_folder_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(png(1))
    columns = rows(0, 2)
    columns["image"] = [
        {"bytes": None, "path": str(tmp_path / "outside.png")},
        {"bytes": None, "path": "inside.png"},
    ]
    place = tmp_path / "set"
    save(made(0, 2), place)
    (place / "inside.png").write_bytes(png(2))
    (shard,) = place.glob("*.arrow")
    table = pa.Table.from_pydict(columns, schema=made().features.arrow_schema)
    with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    outside, inside = read_all(open_source(str(place)))
    assert "no file below the source's folder" in outside.problem
    assert (inside.problem, inside.image) == ("", png(2))


def test_a_type_that_unpickles_is_refused(tmp_path: Path) -> None:
    place = save(made(), tmp_path / "set")
    (shard,) = place.glob("*.arrow")
    kind = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object"}
    table = pa.table({"image": [b"x"], "label": ["a"], "bad": [b"y"]})
    bad = pa.field("bad", pa.binary(), metadata=kind)
    table = table.cast(pa.schema([*[*table.schema][:2], bad]))
    with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    fails(place, "can run a program")


def test_in_a_bucket(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    place = save(datasets.DatasetDict({"train": made(0, 4), "test": made(4, 2)}), tmp_path / "set")
    storage = open_storage(s3_prefix)
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        storage.write_bytes(str(file.relative_to(place)), file.read_bytes())
    source = open_source(s3_prefix)
    assert [sample.image for sample in read_all(source)] == [png(i) for i in range(4)]
    assert len(read_all(source, "test")) == 2


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the library, which asks no network."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def prepare(kind: Any, name: str, cached: Path, files: dict[str, list[str]], config: str) -> None:
    """What the library has in its cache once it has loaded ``someone/name``."""
    builder = kind(
        cache_dir=str(cached / "building"),
        dataset_name=name,
        config_name=config,
        config_id=config,
        hash="c0ffee",
        data_files=DataFilesDict.from_patterns(files),
    )
    builder.download_and_prepare()
    target = cached / "datasets" / f"someone___{name}"
    shutil.copytree(cached / "building" / name, target, dirs_exist_ok=True)


def test_by_name_from_the_cache(cached: Path) -> None:
    made(0, 6).to_parquet(str(cached / "train.parquet"))
    files = {"train": [str(cached / "train.parquet")]}
    prepare(Parquet, "tiny", cached, files, "default")
    source = open_source("hf:someone/tiny")
    assert [sample.image for sample in read_all(source)] == [png(i) for i in range(6)]
    assert [sample.label for sample in read_all(source)[:2]] == ["cat", "dog"]
    prepare(Parquet, "tiny", cached, files, "other")
    with pytest.raises(UserError, match=r"several configurations \(.*hf:someone/tiny/config"):
        open_source("hf:someone/tiny")
    assert len(read_all(open_source("hf:someone/tiny/other"))) == 6


def test_by_name_images_are_files_of_the_cache(cached: Path) -> None:
    snapshot = cached / "hub" / "datasets--someone--files" / "snapshots" / "c0ffee"
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    for number, name in enumerate(("cat", "dog")):
        (blobs / name).write_bytes(png(number))
        (snapshot / name).mkdir(parents=True)
        os.symlink(blobs / name, snapshot / name / "1.png")
    (cached / "secret.png").write_bytes(png(7))
    (snapshot / "dog" / "2.png").write_bytes(png(8))
    prepare(ImageFolder, "files", cached, {"train": [str(snapshot / "**")]}, "default")
    (snapshot / "dog" / "2.png").unlink()
    os.symlink(cached / "secret.png", snapshot / "dog" / "2.png")
    cat, dog, secret = read_all(open_source("hf:someone/files"))
    assert (cat.path, cat.label, cat.image) == ("cat/1.png", "cat", png(0))
    assert (dog.path, dog.label, dog.image) == ("dog/1.png", "dog", png(1))
    assert "no file of the data set" in secret.problem


def test_by_name_and_not_there(cached: Path) -> None:
    with pytest.raises(UserError, match=r"^data.source: 'hf:someone/none' can't be had") as refused:
        open_source("hf:someone/none")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"write hf:owner/name"):
        open_source("hf:none")
