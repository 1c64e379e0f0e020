"""A small artifact for the tests of the store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.schema import table_schema
from cwerm.store.writing import Writer


def meta_table(start: int, rows: int = 3) -> pa.Table:
    columns = [pa.array(range(start, start + rows), pa.int64()), pa.array([1] * rows, pa.int32())]
    return pa.table(columns, schema=table_schema("meta"))


def make(store: ArtifactStore, key: str = "key") -> Artifact:
    writer = Writer(store, "select", key, {"seed": 0})
    parts = [writer.write_part("meta", index, meta_table(3 * index)) for index in range(2)]
    writer.write_file("notes.txt", b"words")
    return writer.commit({"meta": parts}, {"extra": [1, 2]})


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
