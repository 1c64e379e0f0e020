"""Columns beside image, path and label: plain values, which travel along to what is exported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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

Columns = dict[str, pa.DataType]
"""Types by name."""


def can_travel(kind: pa.DataType) -> bool:
    """Whether values of this type are plain: text, numbers, truth values, days and times."""
    types = pa.types
    return (
        (types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind))
        or (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
        or (types.is_date(kind) or types.is_timestamp(kind))
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
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.float32() if pa.types.is_float16(kind) else kind


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    try:
        fields = [pa.schema([("", kind)]) for kind in (first, second)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


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
