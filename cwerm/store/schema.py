"""The Arrow schema of every table that passes between stages, and what a Parquet file may hold.

The values of an extension type are made by code that is registered under the type's name. Ray Data's
unpickles, so that a file could run a program as soon as it is opened: `open_parquet` looks before.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.errors import UserError

IMAGE_BYTES = pa.binary()
DIGEST = pa.binary(16)  # tells an image from any other, whatever its label and place

_NULLABLE = {
    "clean_label",  # null where the labels in use are all that is known
    "distance",  # where the method does not look at it
    # where nothing judges labels
    *("quality", "suggested_label", "suggestion_probability", "duplicate_group"),
}
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
    "test_digests": [("id", pa.int64()), ("digest", DIGEST)],
    "trusted_digests": [("id", pa.int64()), ("digest", DIGEST)],
    "given_test_labels": [("id", pa.int64()), ("label", pa.int32())],
    "test_labels": [("id", pa.int64()), ("label", pa.int32()), ("removed", pa.bool_())],
    "given_validation_labels": [("id", pa.int64()), ("label", pa.int32())],
    "validation_labels": [("id", pa.int64()), ("label", pa.int32()), ("removed", pa.bool_())],
    "trusted_labels": [("id", pa.int64()), ("label", pa.int32())],
    "rejects": [("path", pa.string()), ("reason", pa.string())],
    "coreset": [("id", pa.int64()), ("label", pa.int32()), ("distance", pa.float32())],
    "meta": [("id", pa.int64()), ("label", pa.int32())],
    "coreset_weights": [("id", pa.int64()), ("weight", pa.float32()), ("loss", pa.float32())],
    "neighbors": [("neighbor_id", pa.int64()), ("neighbor_distance", pa.float32())],
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
    ``features`` that of its feature column (a fixed-shape tensor of float16 or float32).
    """
    if name.endswith("images"):
        columns = [
            ("id", pa.int64()),
            ("image", value_type or IMAGE_BYTES),
            ("path", pa.string()),
        ]
    elif name.endswith("features"):
        assert value_type is not None, "features need the type of their tensor"
        columns = [("id", pa.int64()), ("feature", value_type)]
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


# What Arrow itself or JSON describes; everything else may run code.
_PLAIN_TYPES = ("arrow.", "pandas.", "datasets.features.features.")
_PICKLED_TYPE = "arrow.py_extension_type"
# Described by JSON, or by a pickle: that of these shapes is JSON for certain.
_TENSOR_TYPES = ("arrow_tensor", "arrow_tensor_v2", "arrow_variable_shaped_tensor")
_TENSOR_SHAPE = re.compile(rb"\s*(\[[\d,\s]*\]|\d+)\s*")
_SCHEMA, _TYPE, _DETAIL = b"ARROW:schema", b"ARROW:extension:name", b"ARROW:extension:metadata"
_MAGIC, _FRAME = b"PAR1", 8  # bytes: after the footer come its length and the magic bytes
_READ_AT_ONCE = 1 << 16


def open_parquet(source: Any, where: str, **how: Any) -> pq.ParquetFile:
    """A Parquet file, given as a file to read and seek in; ``where`` is its name in messages.

    ``how`` are further arguments of `pyarrow.parquet.ParquetFile`.

    Raises:
        UserError: a column, or something within one, has a type that may run code.
        pyarrow.ArrowInvalid: it is no whole Parquet file.
    """
    footer = _footer(source)
    _check(footer, where)
    # what was looked at is what counts, also where the file is replaced meanwhile
    return pq.ParquetFile(source, metadata=pq.read_metadata(io.BytesIO(_MAGIC + footer)), **how)


def open_plain(
    source: Any, where: str, **how: Any
) -> tuple[pq.ParquetFile, dict[str, tuple[str, bytes]]]:
    """As `open_parquet`, but columns have the types of Parquet itself, whatever Arrow types they had.

    Text is text then, whether it was a dictionary, a view or large; and an extension type is what it is
    stored as. Beside the file: name and description of each column's extension type, where it has one.
    """
    footer = _footer(source)
    types = _check(footer, where)
    metadata = pq.read_metadata(io.BytesIO(_MAGIC + _renamed(footer, _SCHEMA)))
    named: dict[str, tuple[str, bytes]] = {}
    for column, name, detail in types:
        named.setdefault(column, (name, detail))
    return pq.ParquetFile(source, metadata=metadata, **how), named


def _check(footer: bytes, where: str) -> list[tuple[str, str, bytes]]:
    """Raise `UserError` for a type that may run code; else column, name and description of each."""
    types = _extension_types(footer)
    for column, name, detail in types:
        if not _is_plain(name, detail):
            raise UserError(
                f"{where}: column '{column}' has the type '{name}', which can run a program when it is "
                "read; write the file again without it, or with a plain type"
            )
    return types


def read_parquet(data: bytes, where: str, columns: list[str] | None = None) -> pa.Table:
    """The table that a Parquet file's bytes hold.

    Raises:
        UserError: as `open_parquet`.
        pyarrow.ArrowInvalid: likewise.
    """
    return open_parquet(io.BytesIO(data), where).read(columns)


def _footer(source: Any) -> bytes:
    """The footer of a Parquet file, to the file's end."""
    size = source.seek(0, io.SEEK_END)
    size = source.tell() if size is None else size
    source.seek(max(0, size - _READ_AT_ONCE))
    end = bytes(source.read())
    if end.endswith(b"PARE"):
        raise pa.ArrowInvalid("its footer is encrypted")
    if len(end) < _FRAME + len(_MAGIC) or end[-4:] != _MAGIC:
        raise pa.ArrowInvalid("Parquet magic bytes not found in footer")
    length = int.from_bytes(end[-_FRAME:-4], "little") + _FRAME
    if length > size:
        raise pa.ArrowInvalid("the Parquet footer is longer than the file")
    if length > len(end):
        source.seek(size - length)
        end = bytes(source.read())
    source.seek(0)
    return end[-length:]


def _extension_types(footer: bytes) -> list[tuple[str, str, bytes]]:
    """Column, name and description of each extension type in a footer; none is made on the way."""
    metadata = pq.read_metadata(io.BytesIO(_MAGIC + _renamed(footer, _SCHEMA))).metadata or {}
    text = metadata.get(_unknown(_SCHEMA), b"")
    try:
        message = base64.b64decode(text, validate=True)
        if not message:
            return []
        plain = pa.ipc.read_schema(pa.py_buffer(_renamed(message, _TYPE)))
        found = [found for field in plain for found in _named_types(field, field.name)]
    except ValueError as error:
        raise pa.ArrowInvalid(f"the Arrow schema in the footer is damaged: {error}") from None
    if footer.count(_SCHEMA) > 1 or message.count(_TYPE) > len(found):
        # where there are two, another reader could take the other one
        raise pa.ArrowInvalid("the footer holds an Arrow schema or type twice")
    return found


def _renamed(data: bytes, key: bytes) -> bytes:
    """The data with the key under a name that Arrow does not know."""
    if _unknown(key) in data:
        raise pa.ArrowInvalid(f"the footer holds the key {_unknown(key).decode()}")
    return data.replace(key, _unknown(key))


def _unknown(key: bytes) -> bytes:
    return key[:-1] + b"."  # of the same length, so that nothing else in the data moves


def _named_types(field: pa.Field, column: str) -> Iterator[tuple[str, str, bytes]]:
    metadata = field.metadata or {}
    name = metadata.get(_unknown(_TYPE))
    if name is not None:
        yield column, name.decode(errors="replace"), metadata.get(_DETAIL, b"")
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for number in range(kind.num_fields):
        yield from _named_types(kind.field(number), column)


def _is_plain(name: str, detail: bytes) -> bool:
    if name in (f"ray.data.{kind}" for kind in _TENSOR_TYPES):
        return _TENSOR_SHAPE.fullmatch(detail) is not None
    return name.startswith(_PLAIN_TYPES) and name != _PICKLED_TYPE
