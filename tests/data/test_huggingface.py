"""Data sets as Hugging Face's own library saves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from huggingface_sets import DAY, made, png, save
from object_store import s3_prefix  # noqa: F401
from reading_sources import fails, read_all

from cwerm.data import open_source
from cwerm.store.storage import open_storage


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


def test_in_a_bucket(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    place = save(datasets.DatasetDict({"train": made(0, 4), "test": made(4, 2)}), tmp_path / "set")
    storage = open_storage(s3_prefix)
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        storage.write_bytes(str(file.relative_to(place)), file.read_bytes())
    source = open_source(s3_prefix)
    assert [sample.image for sample in read_all(source)] == [png(i) for i in range(4)]
    assert len(read_all(source, "test")) == 2
