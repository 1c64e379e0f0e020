"""Folders of class folders."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
from reading_sources import read_all

from cwerm.data import open_source
from cwerm.errors import UserError


def write(root: Path, *paths: str) -> None:
    """Files whose content is their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def fails(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        open_source(str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("data.source: ")


def test_reads_images_below_class_folders(tmp_path: Path) -> None:
    images = ["cat/1.jpg", "cat/deep/er/2.PNG", "dog/1.webp", "class 10/ü.jpeg", "class 2/x.tif"]
    write(tmp_path, *images, "cat/notes.txt", "cat/.3.jpg", ".git/4.jpg", "readme.md")
    source = open_source(str(tmp_path))
    samples = read_all(source)
    assert sorted(sample.path for sample in samples) == sorted(images)
    assert all(sample.image == sample.path.encode() for sample in samples)
    assert all(sample.label == sample.path.split("/")[0] for sample in samples)
    assert source.class_names() == ["cat", "class 2", "class 10", "dog"]
    assert source.chunks("test", 2) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
def test_chunks_cover_the_split_once(tmp_path: Path, rows: int) -> None:
    write(tmp_path, *(f"{name}/{index}.png" for name in "ab" for index in range(3)), "c/1.png")
    chunks = open_source(str(tmp_path)).chunks("train", rows)
    assert [chunk.size for chunk in chunks[:-1]] == [rows] * (len(chunks) - 1)
    assert [chunk.start for chunk in chunks] == list(range(0, 7, rows))
    assert sum(chunk.size for chunk in chunks) == 7
    assert [len(chunk.files) for chunk in chunks] == [chunk.size for chunk in chunks]


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_train_and_held_out_folders_are_splits(tmp_path: Path, held_out: str) -> None:
    write(tmp_path, "train/a/1.png", "train/b/2.png", f"{held_out}/a/3.png", "notes/readme.txt")
    source = open_source(str(tmp_path))
    assert [sample.path for sample in read_all(source)] == ["train/a/1.png", "train/b/2.png"]
    test = read_all(source, "test")
    assert [(sample.path, sample.label) for sample in test] == [(f"{held_out}/a/3.png", "a")]


def test_val_is_its_own_split_beside_test(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/a/{split}.png" for split in ("train", "val", "test")))
    source = open_source(str(tmp_path))
    for split in ("train", "val", "test"):
        assert [sample.path for sample in read_all(source, split)] == [f"{split}/a/{split}.png"]


def test_an_empty_file_does_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/3.png")
    (tmp_path / "a/1.png").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert [sample.image for sample in read_all(source)] == [b"", b"a/3.png"]


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data, "a/1.png", "a/2.png", "b/2.png")
    source = open_source(str(data))
    before = source.fingerprint()
    assert before == open_source(f"{data}/").fingerprint()
    write(data, "a/notes.txt")
    os.utime(data / "a/1.png", ns=(0, 1))
    assert before == open_source(str(data)).fingerprint()
    shutil.copytree(data, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert before == open_source(str(tmp_path / "elsewhere")).fingerprint(), "nor place nor time"

    (data / "a/1.png").rename(data / "a/3.png")
    renamed = open_source(str(data)).fingerprint()
    (data / "a/3.png").rename(data / "a/1.png")
    (data / "a").rename(data / "c")
    other_class = open_source(str(data)).fingerprint()
    (data / "c").rename(data / "a")
    for path, content in (("a/1.png", "a/2.png"), ("a/2.png", "a/1.png")):
        at = os.stat(data / path)
        (data / path).write_text(content)
        os.utime(data / path, ns=(at.st_atime_ns, at.st_mtime_ns))
    swapped = open_source(str(data)).fingerprint()
    assert len({before, renamed, other_class, swapped}) == 4


def test_what_changes_after_the_fingerprint_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "b/2.png")
    source = open_source(str(tmp_path))
    source.fingerprint()
    os.utime(tmp_path / "a/1.png", ns=(0, 1))
    source.check_unchanged()
    (tmp_path / "a/1.png").write_text("a/9.png")
    with pytest.raises(UserError, match=r"a/1\.png' changed while it was read"):
        source.check_unchanged()
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(UserError, match=r"a/1\.png' was there"):
        source.check_unchanged()


def test_a_relative_path_serves_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "images/a/1.png")
    monkeypatch.chdir(tmp_path)
    source = open_source("images")
    monkeypatch.chdir("/")
    assert [sample.image for sample in read_all(source)] == [b"images/a/1.png"]


def test_a_pickled_copy_leaves_the_list_of_files_behind(tmp_path: Path) -> None:
    write(tmp_path, *(f"a/{index}.png" for index in range(500)))
    assert len(pickle.dumps(open_source(str(tmp_path)))) < 500


def test_errors(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", f"'{tmp_path}/nowhere' does not exist; check the path")
    fails(tmp_path, f"no images below '{tmp_path}'; expected one folder of images a class")
    write(tmp_path, "cat/1.jpg", "dog/.hidden.jpg")
    fails(tmp_path, f"class folder '{tmp_path}/dog' holds no image; fill it or remove it")
    write(tmp_path, "dog/1.jpg", "stray.jpg")
    fails(tmp_path, f"'{tmp_path}/stray.jpg' lies in no class folder; move it into one, or away")


def test_errors_of_splits(tmp_path: Path) -> None:
    write(tmp_path, "train/cat/1.jpg", "val/images/1.jpg")
    fails(tmp_path, f"the test split of '{tmp_path}' has the class folder 'images', which train/")
    write(tmp_path, "train/images/1.jpg", "train/2.jpg")
    fails(tmp_path, f"'{tmp_path}/train/2.jpg' lies in no class folder")
    (tmp_path / "train/2.jpg").unlink()
    (tmp_path / "train/dog").mkdir()
    fails(tmp_path, f"class folder '{tmp_path}/train/dog' holds no image")
    write(tmp_path, "train/dog/1.jpg", "extra/1.jpg")
    fails(tmp_path, f"'{tmp_path}' has split folders ('train/', 'val/') and also images in")


def test_unknown_names_and_schemes() -> None:
    with pytest.raises(
        UserError, match=r"^data\.source: no data set or path 'cifar'; did you mean"
    ):
        open_source("cifar")
    with pytest.raises(UserError, match=r"'fashion_mnist'.*\(known: sample, fashion_mnist, mnist"):
        open_source("fashionmnist")
    with pytest.raises(UserError, match="unknown scheme 'gs'"):
        open_source("gs://bucket/images")


def test_a_part_holds_images_of_all_classes(tmp_path: Path) -> None:
    images = [f"class {c}/{n}.png" for c in range(5) for n in range(40)]
    write(tmp_path, *images)
    chunks = open_source(str(tmp_path)).chunks("train", 50)
    for chunk in chunks:
        assert len({path.split("/")[0] for path in chunk.files}) == 5
    order = [path for chunk in chunks for path in chunk.files]
    assert sorted(order) == sorted(images)
    write(tmp_path, "class 3/new.png")
    with_new = [
        path for chunk in open_source(str(tmp_path)).chunks("train", 50) for path in chunk.files
    ]
    assert [path for path in with_new if path in images] == order
