"""The weights of a run as one file and as a folder of files, in a folder and in a bucket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import s3_prefix, storage_uri  # noqa: F401

import cwerm
from cwerm.errors import UserError
from cwerm.runs import inspection, weights_file
from cwerm.runs.weights_file import remove_weights, write_weights
from cwerm.stages import common
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.schema import table_schema
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer

PARTS = (50, 120, 3, 77)  # rows
FOLDER = "runs/many"


def made_weights(store: ArtifactStore) -> tuple[Artifact, Artifact, pa.Table]:
    """The artifacts of broadcast and ingest, and what a run's file should hold."""
    random, total = np.random.default_rng(0), sum(PARTS)
    columns = {
        "id": np.arange(total),
        "weight": random.random(total),
        "neighbor_distance": random.random(total),
    }
    fields = table_schema("weights")
    arrays = [
        pa.nulls(total, field.type)
        if field.nullable
        else pa.array(columns.get(field.name, random.integers(0, 3, total))).cast(field.type, False)
        for field in fields
    ]
    table = pa.table(arrays, schema=fields)
    extra = pa.table({"id": columns["id"], "source": [f"shop {i % 7}" for i in range(total)]})
    identity = pa.field("id", pa.int64(), nullable=False)
    extra = extra.cast(pa.schema([identity, pa.field("source", pa.string())]))
    weights, images = Writer(store, "broadcast", "k", {}), Writer(store, "ingest", "k", {})
    parts, extras, start = [], [], 0
    for number, rows in enumerate(PARTS):
        parts.append(weights.write_part("weights", number, table.slice(start, rows)))
        extras.append(images.write_part("extra", number, extra.slice(start, rows)))
        start += rows
    made = weights.commit({"weights": parts}), images.commit({"extra": extras})
    return *made, table.append_column(extra.schema.field("source"), extra.column("source"))


def test_many_rows_are_a_folder(
    storage_uri: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = ArtifactStore(open_storage(storage_uri))
    weights, images, expected = made_weights(store)
    run = store.storage.uri(FOLDER)
    write_weights(FOLDER, store, weights, images)
    assert cwerm.load_weights(run).equals(expected)
    assert store.storage.size(f"{FOLDER}/weights.parquet")

    monkeypatch.setattr(weights_file, "ROWS_A_FILE", 100)
    monkeypatch.setattr(weights_file, "ROWS_A_GROUP", 60)
    write_weights(FOLDER, store, weights, images)
    assert cwerm.load_weights(run).equals(expected)
    found = sorted(entry.path.rpartition("/")[2] for entry in store.storage.walk(FOLDER))
    assert found == ["_parts.json", *(f"part-{i:05d}.parquet" for i in range(3))]
    assert inspection.export_weights(run, tmp_path / "w.npy") == 250
    assert np.array_equal(np.load(tmp_path / "w.npy"), common.column(expected, "weight"))

    store.storage.delete(f"{FOLDER}/weights.parquet/part-00001.parquet")
    with pytest.raises(
        UserError, match=r"can't be read \(weights.parquet/part-00001.parquet is missing"
    ):
        cwerm.load_weights(run)

    store.storage.write_bytes(f"{FOLDER}/weights.parquet/_parts.json", b"damaged")
    monkeypatch.setattr(weights_file, "ROWS_A_FILE", 250)
    write_weights(FOLDER, store, weights, images)
    assert cwerm.load_weights(run).equals(expected)
    remove_weights(store.storage, FOLDER)
    assert not [*store.storage.walk(FOLDER)]
    with pytest.raises(UserError, match=r"no weights.parquet"):
        cwerm.load_weights(run)


def test_other_programs_read_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_file, "ROWS_A_FILE", 100)
    store = ArtifactStore(open_storage(str(tmp_path)))
    weights, images, expected = made_weights(store)
    write_weights(FOLDER, store, weights, images)
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / FOLDER).rglob("*.parquet"))[1:]]
    assert [file.metadata.num_rows for file in files] == [100, 100, 50]
    assert pq.read_table(tmp_path / FOLDER / "weights.parquet").equals(expected)
