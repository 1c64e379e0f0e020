"""The Arrow schema of every table that passes between stages, and its check."""

from __future__ import annotations

import pyarrow as pa

IMAGE_BYTES = pa.binary()

_NULLABLE = {"clean_label"}  # null where the labels in use are all that is known
_FIXED: dict[str, list[tuple[str, pa.DataType]]] = {
    "labels": [("id", pa.int64()), ("label", pa.int32()), ("clean_label", pa.int32())],
    "rejects": [("path", pa.string()), ("reason", pa.string())],
    "coreset": [("id", pa.int64()), ("label", pa.int32()), ("distance", pa.float32())],
    "meta": [("id", pa.int64()), ("label", pa.int32())],
    "coreset_weights": [("id", pa.int64()), ("weight", pa.float32()), ("loss", pa.float32())],
    "neighbors": [("neighbor_id", pa.int64()), ("neighbor_distance", pa.float32())],
    "weights": [
        ("id", pa.int64()),
        ("label", pa.int32()),
        ("weight", pa.float32()),
        ("neighbor_id", pa.int64()),
        ("neighbor_distance", pa.float32()),
        ("neighbor_label", pa.int32()),
    ],
}


def table_schema(name: str, *, value_type: pa.DataType | None = None) -> pa.Schema:
    """The schema of the table ``name``.

    ``images`` takes the type of its image column (encoded bytes, or a fixed-shape tensor of uint8),
    ``features`` that of its feature column (a fixed-shape tensor of float16 or float32).
    """
    if name.endswith("images"):
        columns = [
            ("id", pa.int64()),
            ("image", value_type or IMAGE_BYTES),
            ("label", pa.int32()),
            ("clean_label", pa.int32()),
            ("path", pa.string()),
        ]
    elif name.endswith("features"):
        assert value_type is not None, "features need the type of their tensor"
        columns = [("id", pa.int64()), ("label", pa.int32()), ("feature", value_type)]
    else:
        columns = _FIXED[name]
    return pa.schema([pa.field(c, kind, nullable=c in _NULLABLE) for c, kind in columns])


def check(name: str, table: pa.Table) -> None:
    """Assert that ``table`` has the schema of ``name`` and no missing required value."""
    value_column = next((c for c in ("image", "feature") if name.endswith(f"{c}s")), None)
    value_type = table.schema.field(value_column).type if value_column else None
    expected = table_schema(name, value_type=value_type)
    if not table.schema.equals(expected):
        raise AssertionError(f"table {name}: expected {expected}, got {table.schema}")
    for field in expected:
        if not field.nullable and table.column(field.name).null_count:
            raise AssertionError(f"table {name}: column {field.name} has missing values")
