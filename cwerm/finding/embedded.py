"""`find` on embeddings or probabilities that are there already: no images are read, and no Ray is started."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.data.extra import kept_names
from cwerm.data.labels import class_mapping, normal
from cwerm.data.manifests.rows import PATHS, SUFFIXES, Table, read_rows
from cwerm.data.names import suffix
from cwerm.data.parquet.names import has_parquet_name
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.store.plain_types import open_plain
from cwerm.store.storage import fetch
from cwerm.suspects.page import Contents
from cwerm.suspects.suspects import Suspect, nearest_of
from cwerm.terminal import console

VECTORS = ("embedding", "embeddings", "feature", "features", "vector", "probabilities")
# of the keys of `data`, those that count here, and those that `find` sets itself
TAKEN = {"source", "image_column", "label_column", "test_fraction", "max_rejects"}
NPY = b"\x93NUMPY"


def find_embedded(job: Job) -> tuple[Contents, pa.Table]:
    """What `find_label_errors` says of the table ``data.source``, and its other columns for each suspect.

    Raises:
        UserError: a file that can't be read, or rows that do not fit those of the table.
    """
    from cwerm.algorithms.labels.find import find_label_errors

    _check(job)
    table = _rows(job)
    rows = table.rows
    paths = [row.path for row in rows]
    with blame("data.label_column"):
        names, codes = class_mapping([row.label for row in rows])
    labels = np.array([codes[normal(row.label)] for row in rows])
    given = {
        name: _vectors(f"features.{key}", address, paths, job)
        for name, key, address in (
            ("features", "source", job.features.source),
            ("probabilities", "probabilities", job.features.probabilities),
        )
        if address
    }
    shown = ", ".join(f"{name} {v.shape[0]:,} x {v.shape[1]:,}" for name, v in given.items())
    console.note(f"{shown}; no image is read")
    with blame("features.source" if "features" in given else "features.probabilities", names):
        found = find_label_errors(given.get("features"), labels, seed=job.seed, **_others(given))
    told = repr(found).splitlines()
    lines = [line for i, line in enumerate(told) if i == 0 or line.startswith("warning: ")]
    for line in lines:
        console.note(line)
    suspects = _suspects(found, paths, names, given.get("features"))
    title = f"Labels of {job.data.source}"
    extra = table.extra.rename_columns([*kept_names(table.extra.column_names).values()])
    extra = extra.take([suspect.id for suspect in suspects])
    return Contents(title, lines, suspects, {}, names, num_images=len(rows)), extra


def _check(job: Job) -> None:
    """Refuse what says something of images, of which none is read."""
    for key, value in job.data.model_dump().items():
        field = type(job.data).model_fields[key]
        if key not in TAKEN and value != field.default:
            raise UserError(
                f"data.{key}: without images it has no effect; leave it out, or features.source and "
                "features.probabilities"
            )


def _others(given: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: values for name, values in given.items() if name != "features"}


def _rows(job: Job) -> Table:
    data, address = job.data, job.data.source
    if not isinstance(address, str):
        raise UserError(
            "data.source: with features.source or features.probabilities it is one table of paths and "
            "labels; put all rows into one"
        )
    if suffix(address) not in SUFFIXES and not has_parquet_name(address):
        raise UserError(
            f"data.source: '{address}' is no table of paths and labels, whose rows features.source or "
            "features.probabilities are of; give a CSV, JSON Lines or Parquet file"
        )
    with blame(f"data.source: '{address}'"):
        return read_rows(
            _read(address, "data.source", job), address, data.image_column, data.label_column
        )


def _read(address: str, key: str, job: Job) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fetch(address, Path(folder), job.s3).read_bytes()
        except OSError as error:
            raise UserError(
                f"{key}: '{address}' can't be read ({error.strerror}); check the path"
            ) from None


def _vectors(key: str, address: str, paths: Sequence[str], job: Job) -> np.ndarray:
    """A row for each path, [n, d]: in the order of the table, or where the file has paths by these."""
    data = _read(address, key, job)
    with blame(f"{key}: '{address}'"):
        if data.startswith(NPY):
            return _in_order(np.load(io.BytesIO(data), allow_pickle=False), len(paths))
        if not has_parquet_name(address):
            raise ValueError("is neither .npy nor Parquet; save the array by numpy.save")
        try:
            file, _ = open_plain(io.BytesIO(data), address)
            table = file.read()
        except pa.ArrowException as error:
            raise ValueError(f"can't be read: {str(error).splitlines()[0]}") from None
        name = next((name for name in VECTORS if name in table.column_names), None)
        if name is None:
            known = ", ".join(table.column_names)
            raise ValueError(f"has no column {VECTORS[0]} (there are: {known}); rename it")
        values = _matrix(table.column(name), name)
        path = next((name for name in PATHS if name in table.column_names), None)
        if path is None:
            return _in_order(values, len(paths))
        row_of = {value: row for row, value in enumerate(table.column(path).to_pylist())}
        missing = [value for value in paths if value not in row_of]
        if missing:
            raise ValueError(
                f"has no row for '{missing[0]}'"
                + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
                + "; its paths should be those of the table"
            )
        return values[[row_of[value] for value in paths]]


def _matrix(column: pa.ChunkedArray, name: str) -> np.ndarray:
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not pa.types.is_nested(values.type):
        raise ValueError(f"has a column {name} that holds no lists of numbers")
    lengths = {len(row) if row is not None else 0 for row in values}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"has rows of {min(lengths)} to {max(lengths)} numbers in column {name}")
    return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(len(values), -1)


def _in_order(values: np.ndarray, rows: int) -> np.ndarray:
    if values.ndim != 2 or len(values) != rows:
        shape = " x ".join(map(str, values.shape))
        raise ValueError(
            f"holds {shape} numbers, and data.source has {rows} rows; one row for each"
        )
    return values


def _suspects(
    found: Any, paths: list[str], names: list[str], features: np.ndarray | None
) -> list[Suspect]:
    ids = np.flatnonzero(found.is_issue)
    ids = ids[np.lexsort((ids, found.quality[ids]))]
    nearest = np.full(len(ids), -1)
    right = np.flatnonzero(~found.is_issue)
    if features is not None and len(ids) and len(right):
        vectors = features.astype(np.float32)
        wanted = found.suggested_label[ids]
        place = nearest_of(vectors[ids], wanted, vectors[right], found.labels[right])
        nearest = np.where(place >= 0, right[place], -1)
    return [
        Suspect(
            rank,
            paths[i],
            i,
            names[found.labels[i]],
            names[found.suggested_label[i]],
            float(found.quality[i]),
            float(found.suggestion_probability[i]),
            paths[near] if near >= 0 else "",
            near,
        )
        for rank, (i, near) in enumerate(zip(ids.tolist(), nearest.tolist(), strict=True), 1)
    ]
