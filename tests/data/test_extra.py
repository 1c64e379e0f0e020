"""Which columns travel along, as what, and under which names."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.data import open_source
from cwerm.data.extra import MOST, kept_names, of_values, unified
from cwerm.errors import UserError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["a", "b"], ["a", "b"]),
        (["quality", "x"], ["source_quality", "x"]),
        (["quality", "source_quality"], ["source_source_quality", "source_quality"]),
        (["decision", "id"], ["source_decision", "source_id"]),
    ],
)
def test_names_of_ours_get_a_prefix(given: list[str], kept: list[str]) -> None:
    assert [*kept_names(given).values()] == kept


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1", "-2", "", None], [1, -2, None, None]),
        (["007", "1"], ["007", "1"]),
        (["1", "1.5"], [1.0, 1.5]),
        (["1e3", ""], [1000.0, None]),
        (["1.5", "x"], ["1.5", "x"]),
        (["123456789012345678901"], ["123456789012345678901"]),
        (["", ""], ["", ""]),
        (["nan"], ["nan"]),
        (["true"], ["true"]),
    ],
)
def test_numbers_in_text_are_numbers_where_nothing_is_lost(written: Any, expected: Any) -> None:
    found = of_values(written, text=True)
    assert found is not None
    assert found.to_pylist() == expected
    assert [type(value) for value in found.to_pylist()] == [type(value) for value in expected]


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [1, "a"], [b"x"], ["\ud800"], [2**70]])
def test_what_is_not_plain_stays_behind(values: list[Any]) -> None:
    assert of_values(values) is None


def test_types_of_files_are_made_one_where_that_loses_nothing() -> None:
    day, text = pa.date32(), pa.string()
    kinds = [
        {"a": pa.int32(), "b": text, "c": day, "d": pa.list_(text), "e": pa.float16()},
        {"a": pa.int64(), "b": pa.large_string(), "c": text, "f": pa.bool_(), "e": pa.int8()},
    ]
    found, left_out = unified(kinds)
    assert found == {"a": pa.int64(), "b": text, "e": pa.float32(), "f": pa.bool_()}
    assert left_out == ["c", "d"]
    many, left_out = unified([{f"f{i}": pa.float32() for i in range(MOST + 3)}])
    assert (len(many), len(left_out)) == (MOST, 3)


def test_columns_of_a_manifest(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text(name)
    (tmp_path / "m.csv").write_text("size,path,label,,who\n1,1,a,0,x\n2,2,b,0,\n1,1,a,0,again\n")
    source = open_source(str(tmp_path / "m.csv"))
    assert source.extra_columns() == {"size": pa.int64(), "who": pa.string()}
    (chunk,) = source.chunks("train", 10)
    assert [dict(s.extra) for s in source.read(chunk)] == [
        {"size": 1, "who": "x"},
        {"size": 2, "who": ""},
    ]
    lines = [
        '{"path": "1", "label": "a", "tags": ["x"], "ok": true}',
        '{"path": "2", "label": "b"}',
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = open_source(str(tmp_path / "m.jsonl"))
    assert source.extra_columns() == {"ok": pa.bool_()}
    assert any("tags" in line for line in source.remarks())


def test_columns_of_parquet(tmp_path: Path) -> None:
    day = datetime.date(2020, 2, 29)
    columns = {
        "image": [b"x"],
        "label": ["a"],
        "day": [day],
        "list": [[1]],
        "__index_level_0__": [7],
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    source = open_source(str(tmp_path / "p.parquet"))
    assert source.extra_columns() == {"day": pa.date32()}
    (chunk,) = source.chunks("train", 10)
    assert [dict(sample.extra) for sample in source.read(chunk)] == [{"day": day}]


def test_a_value_that_python_can_not_have_is_one_line(tmp_path: Path) -> None:
    far = pa.array([2**60], pa.timestamp("us"))
    pq.write_table(pa.table({"image": [b"x"], "label": ["a"], "t": far}), tmp_path / "p.parquet")
    source = open_source(str(tmp_path / "p.parquet"))
    (chunk,) = source.chunks("train", 10)
    with pytest.raises(UserError, match=r"^data.source: column 't' of '.*p.parquet'") as refused:
        list(source.read(chunk))
    assert "\n" not in str(refused.value)
