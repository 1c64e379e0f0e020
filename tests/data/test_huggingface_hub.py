"""Data sets of Hugging Face by name, as its own library has them in its cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_sets import made, png
from object_store import s3_prefix  # noqa: F401
from reading_sources import read_all

from cwerm.data import open_source
from cwerm.errors import UserError


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
