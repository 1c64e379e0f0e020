"""Classes are matched by name, whatever number each file or source gives them; without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.parquet_files import png, put

from cwerm.data import open_source
from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.stages.ingest.assign import codes_of
from cwerm.stages.ingest.classes import check_classes, encode
from cwerm.stages.ingest.rows.survey import Survey
from cwerm.stages.ingest.scan import Scanner
from cwerm.stages.ingest.sources import plan_chunks
from cwerm.stages.outside import Outside
from cwerm.terminal import console
from stages.surveys import NOWHERE, survey_of

ONE, OTHER = ["cat", "dog", "owl"], ["owl", "dog", "cat"]


def classes(**sources: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The class names, and for each table the class of each row by name."""
    job = parse_job({"data": {role: str(path) for role, path in sources.items()}})
    outside = Outside(job)
    items, opened = plan_chunks(outside, job.data.rows_per_part), outside.sources
    scan = Scanner(opened)
    survey = survey_of(items, [scan(item) for item in items], NOWHERE)
    names, code_of = encode(opened, survey.seen)
    check_classes(job.data.source, names, survey.class_sizes(code_of, len(names)))
    found: dict[str, list[str]] = {}
    for (table, _, _), chunk in zip(items, codes_by_chunk(survey, code_of), strict=True):
        found.setdefault(table, []).extend(names[code] if code >= 0 else "" for code in chunk)
    return names, found


def codes_by_chunk(survey: Survey, code_of: np.ndarray) -> list[np.ndarray]:
    every = np.concatenate([codes_of(code_of, rows.label) for _, rows in survey.rows.every()])
    return np.split(every, survey.rows.ends[1:-1])


def fails(message: str, **sources: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        classes(**sources)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["one folder", "data.test", "data.trusted"])
def test_names_in_another_order(tmp_path: Path, place: str) -> None:
    put(tmp_path / "a/train.parquet", [0, 1, 2, 2], names=ONE)
    if place == "one folder":
        put(tmp_path / "a/test.parquet", [0, 1, 2, 2], names=OTHER)
        names, found = classes(source=tmp_path / "a")
        assert "each is decoded by its own names" in open_source(str(tmp_path / "a")).remarks()[0]
        table = "test_images"
    else:
        put(tmp_path / "b/part.parquet", [0, 1, 2, 2], names=OTHER)
        names, found = classes(source=tmp_path / "a", **{place[5:]: tmp_path / "b"})
        table = f"{place[5:]}_images"
    assert names == ONE
    assert found["images"] == ["cat", "dog", "owl", "owl"]
    assert found[table] == ["owl", "dog", "cat", "cat"]


def test_two_training_files_with_names_in_another_order_or_fewer(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", [0, 1, 2], names=ONE)
    put(tmp_path / "b.parquet", [0, 1], names=["owl", "cat"])
    put(tmp_path / "c.parquet", [0, 0], names=["ant"])
    names, found = classes(source=tmp_path)
    assert names == [*ONE, "ant"]
    assert found["images"] == [*ONE, "owl", "cat", "ant", "ant"]


def test_names_against_text(tmp_path: Path) -> None:
    put(tmp_path / "a/train.parquet", [0, 1, 2], names=ONE)
    put(tmp_path / "a/test.parquet", ["owl", "cat"])
    for name in ONE:
        (tmp_path / "b" / name).mkdir(parents=True)
        (tmp_path / "b" / name / "0.png").write_bytes(png(0))
    assert classes(source=tmp_path / "a")[1]["test_images"] == ["owl", "cat"]
    _, found = classes(source=tmp_path / "b", test=tmp_path / "a/train.parquet")
    assert found == {"images": ONE, "test_images": ONE}


def test_composed_and_decomposed_names(tmp_path: Path) -> None:
    put(tmp_path / "a/train.parquet", [0, 1], names=["caf\u00e9", "dog"])
    put(tmp_path / "a/test.parquet", [1, 1], names=["dog", "cafe\u0301"])
    put(tmp_path / "b.parquet", ["cafe\u0301", "caf\u00e9"])
    names, found = classes(source=tmp_path / "a", trusted=tmp_path / "b.parquet")
    assert names == ["caf\u00e9", "dog"]
    assert found["test_images"] == found["trusted_images"] == ["caf\u00e9", "caf\u00e9"]


def test_integers_against_names_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "a/train.parquet", [0, 1, 2], names=ONE)
    put(tmp_path / "b.parquet", [0, 1])
    fails(
        r"^data\.test: train labels are integers without names, such as 0, and the training classes "
        r"have names \(cat, dog, owl\); write the names there",
        source=tmp_path / "a",
        test=tmp_path / "b.parquet",
    )
    fails(
        r"^data\.test: train class 'cat' is not among the training classes \(0, 1\)",
        source=tmp_path / "b.parquet",
        test=tmp_path / "a",
    )
    put(tmp_path / "a/test.parquet", [0, 1])
    message = r"labels of 'test\.parquet' are integers without names, and those of 'train\.parquet'"
    fails(f"{message} are names; write the names into all files", source=tmp_path / "a")
    put(tmp_path / "a/train.parquet", ["0", "1"])
    fails("write the names into all files", source=tmp_path / "a")


def test_integers_are_matched_by_value(tmp_path: Path) -> None:
    put(tmp_path / "train.parquet", [3, 10, 2])
    put(tmp_path / "test.parquet", [10.0, 3.0])
    (tmp_path / "b/3").mkdir(parents=True)
    (tmp_path / "b/3/0.png").write_bytes(png(0))
    names, found = classes(source=tmp_path / "train.parquet", test=tmp_path / "test.parquet")
    assert names == ["2", "3", "10"]
    assert found["test_images"] == ["10", "3"]
    names, found = classes(source=tmp_path / "train.parquet", trusted=tmp_path / "b")
    assert found["trusted_images"] == ["3"]


def told(**sources: Path) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    with console.told_to(lines.append):
        return classes(**sources)[0], lines


def test_names_without_an_image_are_left_out_and_told(tmp_path: Path) -> None:
    file = put(tmp_path / "a.parquet", [1, 3, 1], names=["bird", "cat", "dog", "frog"])
    names, lines = told(source=file)
    assert names == ["cat", "frog"]
    assert lines == ["2 of 4 classes have no training image and are left out: bird, dog"]
    file = put(tmp_path / "b.parquet", [1, 3, 1], names=[f"class {i}" for i in range(1000)])
    assert told(source=file)[1] == [
        "998 of 1000 classes have no training image and are left out: class 0, class 2, class 4, "
        "class 5, class 6 and 993 more"
    ]


def test_a_class_of_test_images_alone(tmp_path: Path) -> None:
    put(tmp_path / "train.parquet", [0, 1], names=ONE)
    put(tmp_path / "test.parquet", [0, 2], names=ONE)
    message = r"^data\.source: test class 'owl' is not among the training classes \(cat, dog\)"
    fails(message, source=tmp_path)


def test_a_class_whose_images_are_all_unreadable(tmp_path: Path) -> None:
    put(tmp_path / "train.parquet", [0, 1, 2], names=ONE, images=[png(0), b"no image", png(2)])
    fails("class 'dog' has no readable training image", source=tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"info": null}', '{"info": {"features": []}}', '{"info": {"features": {}}}']
    + [
        json.dumps({"info": {"features": {"label": feature}}})
        for feature in (None, "x", {"_type": "ClassLabel"}, {"_type": "ClassLabel", "names": None})
    ]
    + [
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}})
        for names in ([], [1, 2], {"0": "cat"}, "cat")
    ],
)
def test_metadata_of_any_kind(tmp_path: Path, text: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"image": [png(0), png(1)], "label": [0, 1]}
    table = pa.table(columns).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "a.parquet")
    assert classes(source=tmp_path)[0] == ["0", "1"]


def test_arrays_are_matched_by_the_names_of_their_data_set(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", ["Bag", "Coat"])
    outside = Outside(parse_job({"data": {"source": "sample", "test": str(tmp_path)}}))
    opened = outside.sources
    own = opened["source"].class_names()
    assert own is not None
    items = [item for item in plan_chunks(outside, 20) if item[2].start == 0]
    scan = Scanner(opened)
    survey = survey_of(items, [scan(item) for item in items], NOWHERE)
    names, code_of = encode(opened, survey.seen)
    assert names == own
    codes = codes_by_chunk(survey, code_of)
    np.testing.assert_array_equal(codes[-1], [own.index("Bag"), own.index("Coat")])


@pytest.mark.parametrize("other", ["Cat", "cat ", "cat\u200b"])
def test_names_that_differ_in_case_or_blanks_across_sources(tmp_path: Path, other: str) -> None:
    put(tmp_path / "a.parquet", ["cat", "dog"])
    put(tmp_path / "b.parquet", [other, "dog"])
    fails(
        "there is 'cat': name them alike",
        source=tmp_path / "a.parquet",
        test=tmp_path / "b.parquet",
    )
