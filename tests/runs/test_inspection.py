"""Export and the contact sheet, on tables and images of their own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cwerm.errors import UserError
from cwerm.runs import inspection
from cwerm.store.schema import table_schema
from cwerm.suspects import contact_sheet
from cwerm.suspects.fonts import default_font


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, pa.Table]:
    """A run folder's weights, ids in no order."""
    random = np.random.default_rng(0)
    columns = {
        "id": random.permutation(50),
        "label": random.integers(0, 3, 50),
        "weight": random.random(50),
        "neighbor_id": random.integers(0, 50, 50),
        "neighbor_distance": random.random(50),
        "neighbor_label": random.integers(0, 3, 50),
        "quality": random.random(50),
        "suggested_label": random.integers(0, 3, 50),
        "suggestion_probability": random.random(50),
        "duplicate_group": np.arange(50),
    }
    fields = table_schema("weights")
    table = pa.table([pa.array(columns[f.name]).cast(f.type, safe=False) for f in fields], fields)
    pq.write_table(table, tmp_path / "weights.parquet")
    return str(tmp_path), table


def test_export_keeps_every_value(run: tuple[str, pa.Table], tmp_path: Path) -> None:
    folder, table = run
    for name in ("w.parquet", "w.csv", "w.npy"):
        inspection.export_weights(folder, tmp_path / name)
    sorted_table = table.sort_by("quality")
    assert pq.read_table(tmp_path / "w.parquet").equals(sorted_table)
    from_csv = pyarrow.csv.read_csv(tmp_path / "w.csv")
    assert from_csv.column_names == table.column_names
    for name in table.column_names:
        kind = table.schema.field(name).type
        assert from_csv.column(name).cast(kind, safe=False).equals(sorted_table.column(name))
    by_id = np.load(tmp_path / "w.npy")
    assert by_id.dtype == np.float32
    assert [by_id[row["id"]] for row in table.to_pylist()] == table.column("weight").to_pylist()


def test_a_failed_export_leaves_the_earlier_file(run: tuple[str, pa.Table], tmp_path: Path) -> None:
    folder, _ = run
    (tmp_path / "w.csv" / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^--to: '.*w\.csv' can't be written"):
        inspection.export_weights(folder, tmp_path / "w.csv")
    assert (tmp_path / "w.csv" / "inner").is_dir()
    assert not list(tmp_path.glob(".*partial"))


def encoded(color: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_the_sheet_shows_each_image_in_its_place(count: int) -> None:
    colors = [(10 * i, 255 - 10 * i, 60) for i in range(count)]
    images = [encoded(color, (20 + i, 35)) for i, color in enumerate(colors)]
    captions = [(str(i), "очень длинное имя класса " * 3) for i in range(count)]
    sheet = contact_sheet.contact_sheet(images, captions)
    columns = min(count, contact_sheet.COLUMNS)
    step = contact_sheet.TILE + contact_sheet.GAP
    assert sheet.width == columns * step + contact_sheet.GAP
    below = step + 2 * contact_sheet.LINE
    assert sheet.height == -(-count // columns) * below + contact_sheet.GAP
    for i, color in enumerate(colors):
        middle = contact_sheet.GAP + contact_sheet.TILE // 2
        assert sheet.getpixel((middle + i % columns * step, middle + i // columns * below)) == color
    gaps = np.asarray(sheet)[:, ::step]  # captions do not run into the next column
    assert (gaps == 255).all()


def test_letters_beyond_ascii_are_drawn() -> None:
    font = contact_sheet._font(default_font())
    unknown = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != unknown for letter in "éßñЖΩ")
