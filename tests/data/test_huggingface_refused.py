"""Data sets of Hugging Face that are damaged, lack something, or reach for what is not theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_sets import made, png, rows, save
from object_store import s3_prefix  # noqa: F401
from reading_sources import fails, read_all

from cwerm.data import open_source
from cwerm.errors import UserError


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
