"""Columns beside image, path and label: plain values, which travel along to what is exported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cwerm.errors import shown

MOST = 100  # columns; a table of features has more
_OURS = frozenset(
    name
    for line in (
        "id path label weight neighbor_id neighbor_distance neighbor_label quality suggested_label",
        "suggestion_probability duplicate_group label_name suggested_name rank suggested",
        "suggested_probability nearest_path nearest_id decision new_label group labels_differ image",
    )
    for name in line.split()
)
"""Columns of ours, in any file that the values go to, or that is read again."""
_PREFIX = "source_"
# as int and float write them, so that nothing is lost, such as the zeros of a code
_WHOLE = re.compile(r"0|-?[1-9]\d{0,17}")
_DECIMAL = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][-+]?\d{1,2})?")

Columns = dict[str, pa.DataType]
"""Types by name."""


def can_travel(kind: pa.DataType) -> bool:
    """Whether values of this type are plain: text, numbers, truth values, days and times."""
    types = pa.types
    return (
        (types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind))
        or (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
        or (types.is_date(kind) or types.is_timestamp(kind) or types.is_null(kind))
    )


def unified(of_files: Iterable[Mapping[str, pa.DataType]]) -> tuple[Columns, list[str]]:
    """All columns, each of a type that holds the values of all files; and the names of those left out.

    Left out are columns that are not plain, that are of different kinds, or that are too many.
    """
    found: dict[str, pa.DataType | None] = {}
    for columns in of_files:
        for name, kind in columns.items():
            known = found.get(name, kind)
            plain = _simplest(kind) if can_travel(kind) else None
            found[name] = _common(_simplest(known), plain) if known and plain else None
    kept = [name for name, kind in found.items() if kind is not None][:MOST]
    return {name: found[name] for name in kept}, [name for name in found if name not in kept]


def _simplest(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if first == second:
        return first
    if not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (first, second)):
        return None
    try:
        fields = [pa.schema([("", kind)]) for kind in (first, second)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def of_values(values: Sequence[Any], *, text: bool = False) -> pa.Array | None:
    """A column of these values; None where they are not plain, or not of one kind.

    Where all is ``text``, as in CSV, whole numbers and decimal ones that are written as such are numbers.
    """
    if text and (found := _numbers(values)) is not None:
        return found
    try:
        column = pa.array(values)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return None
    return column.cast(_simplest(column.type)) if can_travel(column.type) else None


def _numbers(values: Sequence[str | None]) -> pa.Array | None:
    written = [value or None for value in values]
    given = [value for value in written if value]
    for pattern, kind in ((_WHOLE, int), (_DECIMAL, float)):
        if given and all(pattern.fullmatch(value) for value in given):
            return pa.array([kind(value) if value else None for value in written])
    return None


def values_of(column: pa.Array) -> list[Any]:
    """Values of a column as Python has them.

    Raises:
        ValueError: one that it can't have, such as a day of the year 100,000, or text that is no UTF-8.
    """
    try:
        return column.to_pylist()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"holds a value that can't be read ({str(error).splitlines()[0]})"
        ) from None


def told_left_out(names: list[str]) -> Iterator[str]:
    """A line on columns that stay behind, where there are some."""
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        listed = shown(", ".join(names[:5]))
        yield f"columns that do not travel along, as they are no plain values: {listed}{more}"


def kept_names(names: Iterable[str]) -> dict[str, str]:
    """Under which name each column is kept: its own, with ``source_`` before it where that is one of ours."""
    found: dict[str, str] = {}
    taken = {*names, *_OURS}
    for name in names:
        kept = name
        while kept in _OURS or (kept != name and kept in taken):
            kept = f"{_PREFIX}{kept}"
        taken.add(kept)
        found[name] = kept
    return found
