"""A run's weights as Parquet: what is computed, and what the source tells of each image beside its label.

Up to a million rows they are one file, ``weights.parquet``. More are a folder of that name, whose
``_parts.json`` names its files in their order (what begins with ``_`` is left out by those who read a folder
of Parquet files). Written and read a part at a time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.stages import common
from cwerm.store import plain_types, schema
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.manifest import is_inside
from cwerm.store.schema import EXTRA
from cwerm.store.storage import Storage, parse_mapping

NAME = "weights.parquet"
ROWS_A_FILE = 1_000_000
ROWS_A_GROUP = 1 << 16


def write_weights(folder: str, store: ArtifactStore, weights: Artifact, images: Artifact) -> None:
    """Put the weights into a run's folder of the same storage, in the place of those that were there."""
    storage, path = store.storage, f"{folder}/{NAME}"
    rows = weights.rows("weights")
    files = _files(_groups(_pieces(store, weights, images)))
    if rows <= ROWS_A_FILE:
        remove_weights(storage, folder, but_file=True)
        storage.write_bytes(path, next(files))
        return
    remove_weights(storage, folder)
    names = [f"part-{number:05d}.parquet" for number in range(-(-rows // ROWS_A_FILE))]
    index = json.dumps({"rows": rows, "files": names}, indent=1)
    for name, data in zip(names, files, strict=True):
        storage.write_bytes(f"{path}/{name}", data)
    storage.write_bytes(f"{path}/_parts.json", index.encode())  # last: without it there are none


def remove_weights(storage: Storage, folder: str, *, but_file: bool = False) -> None:
    """Remove a run's weights, if there are some; ``but_file`` keeps what is one file."""
    path = f"{folder}/{NAME}"
    for entry in [*storage.walk(path)]:  # the index is the first of them
        storage.delete(entry.path)
    storage.remove_empty_folders(path)
    if not but_file:
        storage.delete(path)


def read_weights(storage: Storage) -> pa.Table:
    """Those in a run's folder.

    Raises:
        FileNotFoundError: there are none.
        ValueError, KeyError, OSError: they are damaged, or a file is missing.
    """
    try:
        return _parsed(storage.read_bytes(NAME), NAME)
    except (FileNotFoundError, IsADirectoryError):
        names = _named(storage, NAME)
    files = []
    for name in names:
        try:
            files.append(_parsed(storage.read_bytes(f"{NAME}/{name}"), f"{NAME}/{name}"))
        except FileNotFoundError:
            raise ValueError(f"{NAME}/{name} is missing") from None
    return pa.concat_tables(files)


def _parsed(data: bytes, name: str) -> pa.Table:
    table = plain_types.read_parquet(data, name)
    schema.check_stored("weights", table.schema)
    return table


def _named(storage: Storage, path: str) -> list[str]:
    """The files of a folder of weights, in their order."""
    found = parse_mapping(storage.read_bytes(f"{path}/_parts.json"))["files"]
    if not isinstance(found, list) or not found or not all(map(is_inside, found)):
        raise ValueError("_parts.json names no files")
    return found


def _pieces(store: ArtifactStore, weights: Artifact, images: Artifact) -> Iterator[pa.Table]:
    """The parts by id, each with the columns of the source."""
    for part in range(len(weights.tables["weights"])):
        rows = store.read_part(weights, "weights", part)
        if EXTRA in images.tables:
            extra = common.extra_of(store, images, common.column(rows, "id"))
            assert extra is not None, "its table is there"
            for name in extra.column_names:
                rows = rows.append_column(extra.schema.field(name), extra.column(name))
        yield rows


def _groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Small parts together, as many rows of a file are read at once."""
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= ROWS_A_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _files(groups: Iterable[pa.Table]) -> Iterator[bytes]:
    """Parquet files of `ROWS_A_FILE` rows, the last of fewer."""
    buffer, writer, written = io.BytesIO(), None, 0
    for group in groups:
        rows = group
        while len(rows):
            some = rows.slice(0, ROWS_A_FILE - written)
            writer = writer or pq.ParquetWriter(buffer, some.schema, compression="zstd")
            writer.write_table(some)
            rows, written = rows.slice(len(some)), written + len(some)
            if written == ROWS_A_FILE:
                writer.close()
                yield buffer.getvalue()
                buffer, writer, written = io.BytesIO(), None, 0
    if writer:
        writer.close()
        yield buffer.getvalue()
