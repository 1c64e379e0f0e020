"""Parts are bounded by the bytes of their images as well as by rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.parquet_files import png, put

from cwerm.data import Chunk, Source, open_source
from cwerm.data.source import PART_BYTES, runs
from cwerm.stages.ingest.scan import Scanner, parts_of

MEGABYTE = 2**20


def planned(source: Source, rows: int = 1024) -> list[int]:
    return [rows for c in source.chunks("train", rows) for rows in c.parts or (c.size,)]


def test_runs() -> None:
    assert runs([]) == []
    assert runs([0] * 1000) == [1000]
    whole = PART_BYTES
    assert runs([whole, 1, whole - 1, whole + 1, 0, 0, whole]) == [1, 2, 1, 3]
    assert runs(np.full(7, whole // 2, dtype=np.int64)) == [2, 2, 2, 1]


def test_large_files_make_small_parts(tmp_path: Path) -> None:
    for number in range(9):
        path = tmp_path / f"photos/{number}.bmp"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.truncate(path, 6 * MEGABYTE)  # takes no space on disk
    chunks = open_source(str(tmp_path)).chunks("train", 7)
    assert [(chunk.start, chunk.size) for chunk in chunks] == [
        *((0, 2), (2, 2), (4, 2), (6, 1)),  # after 7 rows a part ends in any case
        (7, 2),
    ]
    assert sorted(name for chunk in chunks for name in chunk.files) == [
        f"photos/{number}.bmp" for number in range(9)
    ]


@pytest.mark.parametrize(
    ("group_rows", "expected"), [(40, [20, 20]), (10, [20, 20]), (3, [18, 18, 4])]
)
def test_large_cells_make_small_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int, expected: list[int]
) -> None:
    monkeypatch.setattr("cwerm.data.source.PART_BYTES", 1_050_000)
    cells = pa.array([bytes(50_000)] * 40)
    table = pa.table({"image": cells, "label": [0, 1] * 20})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows, use_dictionary=False)
    assert planned(open_source(str(tmp_path))) == expected


def test_what_the_plan_could_not_know_is_cut_after_the_scan() -> None:
    sizes = np.array([PART_BYTES // 4] * 10, dtype=np.int64)
    assert parts_of(Chunk("train", 0, 10), sizes) == [4, 4, 2]
    assert parts_of(Chunk("train", 0, 10, parts=(3, 7)), sizes) == [3, 4, 3]
    assert parts_of(Chunk("train", 0, 10, parts=(3, 7)), sizes // 100) == [3, 7]


def test_an_image_too_large_for_any_part_is_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwerm.stages.ingest.scan.LARGEST_IMAGE", 1000)
    put(tmp_path / "a.parquet", [0, 1, 0], images=[png(0), png(1) + bytes(1000), png(2)])
    source = open_source(str(tmp_path))
    (chunk,) = source.chunks("train", 10)
    scan = Scanner({"source": source})(("images", "source", chunk))
    assert scan.rejects == [("a.parquet[1]", "larger than 1,000 bytes")]
    assert scan.readable.tolist() == [True, False, True]
