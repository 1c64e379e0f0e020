"""The Arrow schema of every table that passes between stages."""

from __future__ import annotations

import pyarrow as pa

IMAGE_BYTES = pa.binary()
DIGEST = pa.binary(16)  # tells an image from any other, whatever its label and place
EXTRA = "extra"  # id, and whatever plain columns a source has beside images and labels

_NULLABLE = {
    "clean_label",  # null where the labels in use are all that is known
    "distance",  # where the method does not look at it
    # where nothing judges labels
    *("quality", "suggested_label", "suggestion_probability", "duplicate_group"),
}
_HELD_OUT = [
    ("id", pa.int64()),
    ("label", pa.int32()),
    ("known", pa.bool_()),
    ("removed", pa.bool_()),
]
_JUDGED = [
    ("id", pa.int64()),
    ("label", pa.int32()),
    ("quality", pa.float32()),
    ("suggested_label", pa.int32()),
    ("suggestion_probability", pa.float32()),
]
_FIXED: dict[str, list[tuple[str, pa.DataType]]] = {
    "labels": [
        ("id", pa.int64()),
        ("label", pa.int32()),
        ("clean_label", pa.int32()),
        ("uncorrected", pa.int32()),
        ("known", pa.bool_()),
        ("removed", pa.bool_()),
    ],
    "given_labels": [("id", pa.int64()), ("label", pa.int32())],
    "digests": [("id", pa.int64()), ("digest", DIGEST)],
    "validation_digests": [("id", pa.int64()), ("digest", DIGEST)],
    "test_digests": [("id", pa.int64()), ("digest", DIGEST)],
    "trusted_digests": [("id", pa.int64()), ("digest", DIGEST)],
    "contents": [
        ("content", DIGEST),
        ("digest", DIGEST),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bytes", pa.int64()),
    ],
    "scanned": [
        ("label", pa.int32()),
        ("digest", DIGEST),
        ("pixels", DIGEST),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bytes", pa.int64()),
        ("largest", pa.int32()),
        ("content", DIGEST),
        ("known", pa.int64()),
    ],
    "lots": [("lot", pa.uint64()), ("label", pa.int32()), ("row", pa.int64())],
    "given_test_labels": [("id", pa.int64()), ("label", pa.int32())],
    "test_labels": _HELD_OUT,
    "given_validation_labels": [("id", pa.int64()), ("label", pa.int32())],
    "validation_labels": _HELD_OUT,
    "test_judgements": _JUDGED,
    "trusted_judgements": _JUDGED,
    "test_predictions": [
        ("id", pa.int64()),
        ("predicted", pa.int32()),
        ("probability", pa.float32()),
    ],
    "trusted_labels": [("id", pa.int64()), ("label", pa.int32())],
    "rejects": [("path", pa.string()), ("reason", pa.string())],
    "coreset": [("id", pa.int64()), ("label", pa.int32()), ("distance", pa.float32())],
    "meta": [("id", pa.int64()), ("label", pa.int32())],
    "coreset_weights": [("id", pa.int64()), ("weight", pa.float32()), ("loss", pa.float32())],
    "beliefs": [
        ("id", pa.int64()),
        ("classes", pa.list_(pa.int32())),
        ("probabilities", pa.list_(pa.float32())),
    ],
    "weights": [
        ("id", pa.int64()),
        ("label", pa.int32()),
        ("weight", pa.float32()),
        ("neighbor_id", pa.int64()),
        ("neighbor_distance", pa.float32()),
        ("neighbor_label", pa.int32()),
        ("quality", pa.float32()),
        ("suggested_label", pa.int32()),
        ("suggestion_probability", pa.float32()),
        ("duplicate_group", pa.int64()),
    ],
}


def table_schema(name: str, *, value_type: pa.DataType | None = None) -> pa.Schema:
    """The schema of the table ``name``.

    ``images`` takes the type of its image column (encoded bytes, or a fixed-shape tensor of uint8),
    ``features`` that of its feature column (a fixed-shape tensor of float16 or float32). Those that are
    ``sorted`` by class have their labels beside them.
    """
    if name.endswith("images"):
        columns = [
            ("id", pa.int64()),
            ("image", value_type or IMAGE_BYTES),
            ("path", pa.string()),
        ]
    elif name.endswith("features"):
        assert value_type is not None, "features need the type of their tensor"
        label = [("label", pa.int32())] if name.startswith("sorted") else []
        columns = [("id", pa.int64()), *label, ("feature", value_type)]
    else:
        columns = _FIXED[name]
    return pa.schema([pa.field(c, kind, nullable=c in _NULLABLE) for c, kind in columns])


def check(name: str, table: pa.Table) -> None:
    """Assert that ``table`` has the schema of ``name`` and no missing required value."""
    if name == EXTRA:
        if table.schema.field(0) != pa.field("id", pa.int64(), nullable=False):
            raise AssertionError(f"table {name}: got {table.schema}")
        return
    value_column = next((c for c in ("image", "feature") if name.endswith(f"{c}s")), None)
    value_type = table.schema.field(value_column).type if value_column else None
    expected = table_schema(name, value_type=value_type)
    if not table.schema.equals(expected):
        raise AssertionError(f"table {name}: expected {expected}, got {table.schema}")
    for field in expected:
        if not field.nullable and table.column(field.name).null_count:
            raise AssertionError(f"table {name}: column {field.name} has missing values")


def check_stored(name: str, found: pa.Schema) -> None:
    """Check the columns of a stored table, of which nobody knows who wrote them.

    Raises:
        ValueError: a column of the table ``name`` has another type.
    """
    if name not in _FIXED and not name.endswith(("images", "features")):
        return
    value_type = next((found.field(c).type for c in ("image", "feature") if c in found.names), None)
    for field in table_schema(name, value_type=value_type or IMAGE_BYTES):
        if field.name not in found.names:
            continue  # what is missing and needed shows when it is read
        kind = found.field(field.name).type
        right = kind == field.type
        if field.name in ("image", "feature"):
            element = kind.value_type if isinstance(kind, pa.FixedShapeTensorType) else None
            image = kind == IMAGE_BYTES or element == pa.uint8()
            right = image if field.name == "image" else element in (pa.float16(), pa.float32())
        if not right:
            raise ValueError(f"column {field.name} is {kind}")
