"""Lists for people and other programs: a row for each item, under the names of its fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def as_csv(kind: type, items: Sequence[Any], extra: pa.Table | None = None) -> str:
    """Items of a dataclass, each with its row of ``extra``; the names alone where there are none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    others = (
        [] if extra is None else [extra.column(name).to_pylist() for name in extra.column_names]
    )
    names = [] if extra is None else extra.column_names
    writer.writerow([*(field.name for field in fields(kind)), *names])
    for item, *values in zip(items, *others, strict=True):
        writer.writerow([*map(_cell, astuple(item)), *map(_other, values)])
    return text.getvalue()


def _other(value: Any) -> Any:
    """A value of the source's own, to the last digit."""
    return str(value).lower() if isinstance(value, bool) else value


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else value
