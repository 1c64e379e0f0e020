"""Which split a name tells."""

from __future__ import annotations

import pytest

from cwerm.data.files.file_source import SplitName, split_in_name

NAMES = {
    "train": "train Training TRAIN train_set train-images trainset TrainSet train2017 TRAINDATA "
    "train-00000-of-00001 Training_Set trainval",
    "test": "test Test Testing test_images testImages test1 holdout hold-out Held_Out testset",
    "val": "val valid Validation val_set VALSET dev eval Evaluation val2017 validation-data",
}


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for split, names in NAMES.items() for name in names.split()]
)
def test_names_of_splits(name: str, split: str) -> None:
    assert split_in_name(name) == SplitName(split)


@pytest.mark.parametrize(
    ("name", "split", "others"),
    [
        ("flowers-train", "train", ("flowers",)),
        ("seg_test", "test", ("seg",)),
        ("asl_alphabet_train", "train", ("asl", "alphabet")),
        ("test tube", "test", ("tube",)),
        ("ILSVRC2012_img_val", "val", ("ilsvrc",)),
    ],
)
def test_names_with_other_words(name: str, split: str, others: tuple[str, ...]) -> None:
    assert split_in_name(name) == SplitName(split, others)


@pytest.mark.parametrize(
    "name",
    ["", "trainer", "contest", "latest", "strain", "cat", "trains", "devil", "medieval", "7"],
)
def test_names_without_a_split(name: str) -> None:
    assert split_in_name(name) is None


@pytest.mark.parametrize("name", ["train-test", "val_test", "test of training"])
def test_two_splits_in_one_name(name: str) -> None:
    with pytest.raises(ValueError, match="names two splits"):
        split_in_name(name)
