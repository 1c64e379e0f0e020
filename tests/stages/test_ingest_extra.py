"""Columns beside image, path and label, and several sources: from ingest to what is exported."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.job.tree import Job
from cwerm.pipeline import plan
from cwerm.runs.weights_file import read_weights, write_weights
from cwerm.stages import common
from cwerm.store import schema
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer
from cwerm.suspects.csv_files import as_csv
from cwerm.suspects.duplicates import Duplicate
from stages.conftest import Chain
from stages.test_ingest import write_folder

MakeJob = Callable[..., Job]
DAY = datetime.date(2020, 2, 29)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A manifest, Parquet and a folder: 20, 6 and 4 images."""
    root = tmp_path_factory.mktemp("extra")
    write_folder(root, {"cat": 10, "dog": 10})
    rows = ["path,label,quality,code,note"]
    rows += [
        f'{name}/{i:03d}.png,{name},{i},0{i},"a, {i}"' for i in range(10) for name in ("cat", "dog")
    ]
    manifest = root / "m.csv"
    manifest.write_text("\n".join(rows))
    images = [path.read_bytes() for path in sorted(root.rglob("00[0-2].png"))]
    columns: dict[str, Any] = {"image": images, "label": ["cat"] * 3 + ["dog"] * 3}
    columns |= {"quality": [0.5] * 6, "taken": [DAY] * 6, "boxes": [[1, 2]] * 6}
    pq.write_table(pa.table(columns), root / "p.parquet")
    write_folder(root / "more", {"cat": 2, "eel": 2})
    return [manifest, root / "p.parquet", root / "more"]


@pytest.fixture(scope="module")
def ingested(
    ray_session: None, places: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Chain:
    from cwerm.job.tree import parse_job

    data = {"source": [*map(str, places)], "rows_per_part": 7, "test_fraction": 0.2}
    tree = {"storage": str(tmp_path_factory.mktemp("store")), "data": data}
    chain = Chain(plan(parse_job(tree | {"resources": {"workers": 2}}), "ingest"))
    chain.run("ingest")
    return chain


def expected(path: str) -> dict[str, Any]:
    source, _, inner = path.partition("/")
    if source == "m.csv":
        number = int(inner[-7:-4])
        return {
            "source_quality": number,
            "code": f"0{number}",
            "note": f"a, {number}",
            "taken": None,
        }
    quality, taken = (0.5, DAY) if source == "p.parquet" else (None, None)
    return {"source_quality": quality, "code": None, "note": None, "taken": taken}


def test_every_image_has_its_values(ingested: Chain) -> None:
    images, extra = ingested.table("ingest", "images"), ingested.table("ingest", schema.EXTRA)
    assert images.num_rows == extra.num_rows < 30
    assert extra.column("id").to_pylist() == list(range(len(images)))
    for path, row in zip(images.column("path").to_pylist(), extra.to_pylist(), strict=True):
        assert {name: value for name, value in row.items() if name != "id"} == expected(path)
    assert {path.partition("/")[0] for path in images.column("path").to_pylist()} == {
        "m.csv", "p.parquet", "more",
    }  # fmt: skip


def test_what_was_understood_of_several_sources_is_told(ingested: Chain) -> None:
    told = "\n".join(ingested.made["ingest"].info["understood"])
    counts = re.search(r"3 sources: m\.csv (\d+), p\.parquet (\d+), more (\d+)", told)
    assert counts
    assert sum(map(int, counts.groups())) == ingested.made["ingest"].rows("images")
    assert "classes that more alone has: eel" in told
    assert "columns that travel along: quality as source_quality, code, note, taken" in told
    assert "do not travel along, as they are no plain values: boxes" in told


def test_values_of_some_images_in_any_order(ingested: Chain) -> None:
    paths = ingested.table("ingest", "images").column("path").to_pylist()
    ids = np.array([len(paths) - 1, 0, 9, 8])
    found = common.extra_of(ingested.store, ingested.made["ingest"], ids)
    assert found is not None
    assert found.to_pylist() == [expected(paths[i]) for i in ids.tolist()]
    none = common.extra_of(ingested.store, ingested.made["ingest"], ids[:0])
    assert none is not None
    assert (none.num_rows, none.column_names) == (0, found.column_names)


def test_the_file_of_weights_has_them(ingested: Chain) -> None:
    paths = ingested.table("ingest", "images").column("path").to_pylist()
    writer = Writer(ingested.store, "broadcast", "k", {})
    parts = []
    for number, ids in enumerate(np.array_split(np.arange(len(paths)), 3)):
        columns = [ids, ids % 2, ids / 2, ids, ids / 4, ids % 2, *[None] * 4]
        parts.append(writer.write_part("weights", number, common.table("weights", *columns)))
    weights = writer.commit({"weights": parts})
    write_weights("runs/extra", ingested.store, weights, ingested.made["ingest"])
    found = read_weights(open_storage(ingested.store.storage.uri("runs/extra")))
    assert found.column("id").to_pylist() == list(range(len(paths)))
    assert found.column("weight").to_pylist() == [i / 2 for i in range(len(paths))]
    own = schema.table_schema("weights").names
    assert found.drop_columns(own).to_pylist() == [expected(path) for path in paths]


def test_lists_have_them_last(ingested: Chain) -> None:
    paths = ingested.table("ingest", "images").column("path").to_pylist()
    ids = np.array([0, len(paths) - 1])
    items = [Duplicate(1, paths[i], i, "training", "cat", False) for i in ids.tolist()]
    extra = common.extra_of(ingested.store, ingested.made["ingest"], ids)
    found = [*csv.DictReader(io.StringIO(as_csv(Duplicate, items, extra)))]
    for row, path in zip(found, paths[:1] + paths[-1:], strict=True):
        assert row["path"] == path
        for name, value in expected(path).items():
            shown = "" if value is None else value
            number = isinstance(value, int | float)
            assert float(row[name]) == value if number else row[name] == shown


def test_a_source_without_other_columns_has_no_such_table(chain: Chain) -> None:
    assert schema.EXTRA not in chain.made["ingest"].tables
    assert common.extra_of(chain.store, chain.made["ingest"], np.arange(3)) is None
    write_weights("runs/plain", chain.store, chain.made["broadcast"], chain.made["ingest"])
    found = read_weights(open_storage(chain.store.storage.uri("runs/plain")))
    assert found.equals(chain.table("broadcast", "weights"))
