"""Columns of labels: text or whole numbers, however they are written, and the names of classes."""

from __future__ import annotations

import decimal
import json
from typing import Any

import pyarrow as pa

from cwerm.data.labels import Label, normal

NO_LABEL = -1  # the code that Hugging Face gives to rows without a label


def is_text(kind: pa.DataType) -> bool:
    """Whether labels of this type are text."""
    return pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_boolean(kind)


def is_label(kind: pa.DataType) -> bool:
    """Whether values of this type can be labels: text, integers, or other types of whole numbers."""
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return is_text(kind) or numbers


def class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The names in the Hugging Face ``ClassLabel`` of the column, None without them."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        feature = info["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError):
        return None  # no such feature, or nothing of Hugging Face's
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(str(normal(name)) for name in names) or None


def label_of(value: Any, names: tuple[str, ...] | None) -> Label | None:
    """The label that a cell stands for: a name where the file has them; None for no label.

    Raises:
        ValueError: the value is neither text nor a whole number, or none of the names.
    """
    value = _whole_or_text(value)
    if value is None or value == "":
        return None
    if names is None or isinstance(value, str):
        return normal(value)
    if value == NO_LABEL:
        return None
    if not 0 <= value < len(names):
        raise ValueError(f"label {value} is not among the {len(names)} class names of the file")
    return names[value]


def _whole_or_text(value: Any) -> Label | None:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("its bytes are no text") from None
    if value != value:  # not a number, which pandas writes for what is missing
        return None
    number = decimal.Decimal(value)
    if not number.is_finite() or number != int(number):
        raise ValueError(f"label {value} is no whole number")
    return int(number)
