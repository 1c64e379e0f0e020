"""Folders of classes and of splits as people lay them out, and what is asked where it is not plain."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from cwerm.data import open_source
from cwerm.errors import UserError


def write(root: Path, layout: str) -> None:
    """A file for each path, folders for those that end in ``/``."""
    for path in layout.split("; "):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir()
        else:
            (root / path).write_bytes(b"x")


def understood(root: Path) -> dict[str, str]:
    """The classes of each split, one letter an image."""
    source = open_source(str(root))
    found = {}
    for split in ("train", "val", "test"):
        samples = [s for chunk in source.chunks(split, 2) for s in source.read(chunk)]
        if samples:
            found[split] = " ".join(sorted(str(sample.label) for sample in samples))
    return found


def both(train: str, test: str, inside: str = "") -> str:
    folders = [f"{train}/{inside}a/1.png", f"{train}/{inside}b/1.png", f"{test}/{inside}b/2.png"]
    return "; ".join(folders)


SPLITS = {"train": "a b", "test": "b"}
PLAIN = {
    **{
        both(train, test): SPLITS
        for train, test in [
            ("Training", "Testing"),
            ("Train", "TEST"),
            ("train-set", "test_images"),
            ("train", "valid"),
            ("training_set", "val_set"),
            ("train", "validation"),
            ("train", "dev"),
            ("train", "eval"),
            ("TrainSet", "HoldOut"),
            ("train2017", "val2017"),
            ("seg_train", "seg_test"),
            ("flowers-train", "flowers-test"),
            # below folders that say nothing, also in each split
            ("dataset/train", "dataset/test"),
            ("my/own/Train", "my/own/Val"),
            ("seg_train/seg_train", "seg_test/seg_test"),
            ("train/images", "test/images"),
        ]
    },
    "train/a/1.png; train/b/1.png; test/b/x/1.png": SPLITS,  # folders below a class are no classes
    "train/a/1.png; val/a/1.png; test/a/1.png": {"train": "a", "val": "a", "test": "a"},
    "train/a/1.png; train/b/1.png": {"train": "a b"},
    "test/a/1.png; test/b/1.png": {"test": "a b"},
    "valid/a/1.png; valid/b/1.png": {"test": "a b"},
    "a/train/1.png; b/train/1.png; b/test/2.png": SPLITS,
    "all/a/Training/1.png; all/b/Training/1.png; all/b/Testing/2.png": SPLITS,
    "a/1.png; b/1.png": {"train": "a b"},
    "pets/a/1.png; pets/b/1.png": {"train": "a b"},
    "a/1.png; a/deep/er/1.png; b/1.png": {"train": "a a b"},
    # classes that are called as splits are
    "bus/1.png; car/1.png; train/1.png; truck/1.png": {"train": "bus car train truck"},
    "test/1.png; exam/1.png; quiz/1.png": {"train": "exam quiz test"},
    "test_tube/1.png; beaker/1.png": {"train": "beaker test_tube"},
    "train_station/day/1.png; airport/day/1.png": {"train": "airport train_station"},
    "ground/train/1.png; ground/car/1.png; air/1.png": {"train": "air ground ground"},
}


@pytest.mark.parametrize("layout", PLAIN)
def test_what_is_plain(tmp_path: Path, layout: str) -> None:
    write(tmp_path, layout)
    assert understood(tmp_path) == PLAIN[layout]


QUESTIONS = {
    "train/1.png; test/2.png": "named as splits, but no class folders in them",
    "Training/1.png; Testing/2.png; Valid/3.png": "named as splits, but no class folders in them",
    "train/1.png; test/1.png; cat/1.png": "named as splits, but no class folders in them",
    "train/1.png": "'train/', which are named as splits, but no class folders",
    "train/a/1.png; train/b/1.png; test/1.png": "test/1.png' lies in no class folder",
    "train/a/1.png; train/b/1.png; unlabelled/1.png": "also images in 'unlabelled/'; move those away",
    "seg_train/a/1.png; seg_test/a/1.png; seg_pred/1.png": "also images in 'seg_pred/'; move those",
    "train/a/1.png; valid/a/1.png; dev/a/1.png": "has 'dev/', 'valid/', which all name the val split",
    "Train/a/1.png; train/b/1.png": "has 'Train/', 'train/', which all name the train split",
    "a/train/1.png; a/test/1.png; b/1.png": "split folders in the class 'a' ('test/', 'train/'), but",
    "a/1.png; a/test/2.png; b/1.png": "split folders in the class 'a' ('test/'), but not only such",
    "train/a/1.png; train/b/1.png; test/": "split folder '{}/test' holds no image; fill it",
    "a/x/1.png; a/y/1.png; b/": "class folder '{}/b' holds no image; fill it",
    "fold1/train/a/1.png; fold2/train/a/1.png": "folders in them below 'fold1/', 'fold2/', such as",
    "train/Cat/1.png; test/cat/1.png": "'cat', which train/ has not, but 'Cat'; name them alike",
    "train/cat/1.png; test/cat /1.png": "'cat ', which train/ has not, but 'cat'; name them alike",
    "cat/1.png; cat /1.png": "classes 'cat' and 'cat ' of '{}' differ in blanks alone; join",
    "a/1.png; b/1.png; 1.png": "{}/1.png' lies in no class folder; move it into one, or away",
}


@pytest.mark.parametrize("layout", QUESTIONS)
def test_what_is_doubtful_is_a_question(tmp_path: Path, layout: str) -> None:
    write(tmp_path, layout)
    with pytest.raises(UserError) as error:
        open_source(str(tmp_path))
    text = str(error.value)
    assert QUESTIONS[layout].format(tmp_path) in text
    assert text.startswith("data.source: ")
    assert "\n" not in text


def test_composed_and_decomposed_class_folders(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "pâté") for form in ("NFC", "NFD"))
    write(
        tmp_path,
        f"train/{composed}/1.png; train/soup/1.png; train/{apart}/2.png; test/{apart}/3.png",
    )
    assert understood(tmp_path) == {"train": f"{composed} {composed} soup", "test": composed}
    assert open_source(str(tmp_path)).class_names() == [composed, "soup"]


def test_where_a_split_was_found_is_told(tmp_path: Path) -> None:
    write(tmp_path / "1", both("all/Training", "all/Testing"))
    source = open_source(f"{tmp_path}/1")
    assert [source.origin(s) for s in ("train", "test")] == ["all/Training/", "all/Testing/"]
    write(tmp_path / "2", "a/Train/1.png; b/Train/1.png; b/Test/2.png")
    assert open_source(f"{tmp_path}/2").origin("test") == "<class>/Test/"
    write(tmp_path / "3", "a/1.png; b/1.png")
    assert open_source(f"{tmp_path}/3").origin("train") == "all class folders"
    write(tmp_path / "4", "pets/a/1.png; pets/b/1.png")
    assert open_source(f"{tmp_path}/4").origin("train") == "pets/"
