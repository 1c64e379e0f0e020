"""Tables of classes that are taken for each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cwerm.algorithms.noise.confusion import confusion_matrix
from cwerm.data.confusions import read_confusions
from cwerm.data.sample import SampleSource
from cwerm.errors import UserError

TABLE = {"cat": {"dog": 0.2, "owl": 0.1}, "dog": {"cat": 0.3}}


@pytest.mark.parametrize(
    "text", [json.dumps(TABLE), "cat: {dog: 0.2, owl: 0.1}\ndog:\n  cat: 0.3\n"]
)
def test_yaml_and_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    assert read_confusions("./images", str(tmp_path / "t.yaml")) == TABLE


def test_the_sample_has_a_table_of_its_own() -> None:
    names = SampleSource().class_names()
    assert names
    matrix = confusion_matrix(read_confusions("sample", None), names)
    assert 0.2 < 1 - matrix.diagonal().mean() < 0.4


@pytest.mark.parametrize(
    "text",
    ["", "cat", "[1, 2]", "cat: dog", "cat: {dog: much}", "cat: {dog: [0.1]}", "{", "1: {2: 0.1}"],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.confusions: '.*t\.yaml' is no table") as refused:
        read_confusions("./images", str(tmp_path / "t.yaml"))
    assert "\n" not in str(refused.value)


def test_other_classes_need_a_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.confusions: noise confusion needs a table"):
        read_confusions(str(tmp_path), None)
    with pytest.raises(UserError, match=r"data\.confusions: '.*none' can't be read"):
        read_confusions(str(tmp_path), str(tmp_path / "none"))
