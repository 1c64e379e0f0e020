"""What every stage needs: tables and columns, rows of a table by id, and the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore


def table(name: str, *columns: Any) -> pa.Table:
    """A table of the schema of that name; its columns as arrays or lists, None for one without values."""
    fields = schema.table_schema(name)
    rows = next(len(values) for values in columns if values is not None)
    arrays = [
        pa.nulls(rows, field.type) if values is None else pa.array(values, field.type)
        for values, field in zip(columns, fields, strict=True)
    ]
    return pa.table(arrays, schema=fields)


def digests(rows: np.ndarray) -> pa.Array:
    """Digests of 16 bytes each, uint8 [n, 16], as a column."""
    return pa.Array.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(rows.tobytes())])


def column(table: Any, name: str) -> np.ndarray:
    """A numeric or fixed-shape tensor column as one NumPy array."""
    values = table.column(name).combine_chunks()
    if hasattr(values, "to_numpy_ndarray"):
        return values.to_numpy_ndarray()
    return values.to_numpy(zero_copy_only=False)


def take_rows(
    store: ArtifactStore, artifact: Artifact, table: str, name: str, ids: np.ndarray
) -> list[Any]:
    """Values of one column for ``ids``, in their order; reads only the parts that hold them.

    Ids are contiguous from 0 in the order of the parts, so a part's rows are a range of ids.
    """
    ends = np.cumsum([part.rows for part in artifact.tables[table]])
    part_of = np.searchsorted(ends, ids, side="right")
    values: list[Any] = [None] * len(ids)
    parts = np.unique(part_of).tolist()
    for index, rows in zip(parts, store.read_parts(artifact, table, parts, [name]), strict=True):
        start = ends[index] - artifact.tables[table][index].rows
        wanted = np.flatnonzero(part_of == index)
        cells = images_of(rows) if name == "image" else column(rows, name)
        places = ids[wanted] - start
        # taken as a copy: views of single rows would keep every part in memory
        taken = cells[places] if isinstance(cells, np.ndarray) else [cells[i] for i in places]
        for position, value in zip(wanted, taken, strict=True):
            values[position] = value
    return values


def extra_of(store: ArtifactStore, images: Artifact, ids: np.ndarray) -> pa.Table | None:
    """What the source tells of images beside their labels, a row for each of ``ids``; None where nothing.

    Reads only the parts that hold them.
    """
    if schema.EXTRA not in images.tables:
        return None
    ends = np.cumsum([part.rows for part in images.tables[schema.EXTRA]])
    part_of = np.searchsorted(ends, ids, side="right")
    found, order = [], []
    for index in np.unique(part_of).tolist():
        rows = store.read_part(images, schema.EXTRA, index)
        wanted = np.flatnonzero(part_of == index)
        found.append(rows.take(ids[wanted] - (ends[index] - len(rows))))
        order.append(wanted)
    whole = pa.concat_tables(found or [store.read_part(images, schema.EXTRA, 0).slice(0, 0)])
    places = np.argsort(np.concatenate(order)) if order else np.empty(0, np.int64)
    return whole.take(places).drop_columns("id")


def dimensions(store: ArtifactStore, features: Artifact, table: str = "features") -> int:
    """Length of a feature vector."""
    (length,) = _feature_field(store, features, table).shape
    return int(length)


def feature_type(store: ArtifactStore, features: Artifact) -> str:
    """``float16`` or ``float32``."""
    value = _feature_field(store, features, "features").value_type
    return np.dtype(value.to_pandas_dtype()).name


def _feature_field(store: ArtifactStore, features: Artifact, table: str) -> Any:
    return store.read_part(features, table, 0, ["feature"]).schema.field("feature").type


def images_of(table: Any) -> list[bytes] | np.ndarray:
    """The image column: encoded bytes, or an array of uint8 pixels for each row."""
    values = table.column("image").combine_chunks()
    if hasattr(values, "to_numpy_ndarray"):
        return values.to_numpy_ndarray()
    return values.to_pylist()


def labels_of(store: ArtifactStore, labels: Artifact) -> np.ndarray:
    """Labels in use of all training images in the order of their ids, int32 [n]."""
    return column(store.read(labels, "labels", ["label"]), "label")


def known_of(store: ArtifactStore, labels: Artifact) -> np.ndarray:
    """Of which training images a person has said that the label is right, bool [n]."""
    return column(store.read(labels, "labels", ["known"]), "known")


def uncorrected_of(store: ArtifactStore, labels: Artifact) -> np.ndarray:
    """Labels of all training images before a person corrected some, int32 [n]."""
    return column(store.read(labels, "labels", ["uncorrected"]), "uncorrected")


def removed_of(store: ArtifactStore, labels: Artifact) -> np.ndarray:
    """Which training images a person wants to have left out, bool [n]."""
    return column(store.read(labels, "labels", ["removed"]), "removed")


def clean_labels_of(store: ArtifactStore, labels: Artifact) -> np.ndarray | None:
    """True labels of all training images where noise was made of them, int32 [n], or None."""
    found = store.read(labels, "labels", ["clean_label"])
    return None if found.column("clean_label").null_count else column(found, "clean_label")


def right_labels_of(store: ArtifactStore, labels: Artifact) -> np.ndarray:
    """Labels of all training images as they would be without the noise that was made, int32 [n]."""
    clean = clean_labels_of(store, labels)
    return labels_of(store, labels) if clean is None else clean


def by_part(values: np.ndarray, artifact: Artifact, table: str) -> list[np.ndarray]:
    """Values of all samples, cut into those of each part of a table."""
    ends = np.cumsum([part.rows for part in artifact.tables[table]])
    return np.split(values, ends[:-1])
