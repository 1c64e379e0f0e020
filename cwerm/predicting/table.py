"""The file of predictions, written as they come: CSV or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cwerm.errors import UserError

SUFFIXES = (".csv", ".parquet")
CLASS = "p_"  # before the name of a class, the column of its probability


class FewRows(NamedTuple):
    """What is said of some images."""

    paths: list[str]
    probabilities: np.ndarray
    """float32 [n, classes]; NaN for what could not be read."""
    errors: list[str]
    """Why an image could not be read; "" for most."""


Write = Callable[[FewRows, float], list[str | None]]


def check_target(target: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        UserError: its suffix is not one of `SUFFIXES`.
    """
    if target.suffix not in SUFFIXES:
        raise UserError(f"--to: '{target}' should end in {' or '.join(SUFFIXES)}")


@contextmanager
def written(target: Path, names: Sequence[str]) -> Iterator[Write]:
    """A function that writes rows, and gives the class of each, None for none; all of the file or nothing.

    Raises:
        UserError: it can't be written.
    """
    from pyarrow import csv, parquet

    partial = target.with_name(f".{target.name}.partial")
    schema = _schema(names)
    kind: Any = csv.CSVWriter if target.suffix == ".csv" else parquet.ParquetWriter
    try:
        with _blamed(target):
            file = kind(str(partial), schema)

        def write(rows: FewRows, threshold: float) -> list[str | None]:
            table, chosen = _table(rows, threshold, names, schema)
            with _blamed(target):
                file.write_table(table)
            return chosen

        try:
            yield write
        finally:
            with _blamed(target):
                file.close()
        with _blamed(target):
            partial.replace(target)
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


@contextmanager
def _blamed(target: Path) -> Iterator[None]:
    """Tell of the file what goes wrong with it, and of nothing else."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--to: '{target}' can't be written ({error.strerror or error}); choose another place"
        ) from None


def _schema(names: Sequence[str]) -> pa.Schema:
    known = [
        ("path", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float32()),
        ("error", pa.string()),
    ]
    return pa.schema([*known, *((CLASS + name, pa.float32()) for name in names)])


def _table(
    rows: FewRows, threshold: float, names: Sequence[str], schema: pa.Schema
) -> tuple[pa.Table, list[str | None]]:
    found = np.nan_to_num(rows.probabilities, nan=-1.0)
    best, largest = found.argmax(axis=1), found.max(axis=1)
    sure = largest >= max(threshold, 0.0)
    chosen = [names[b] if yes else None for b, yes in zip(best, sure, strict=True)]
    readable = largest >= 0

    def column(values: np.ndarray) -> pa.Array:
        return pa.array(values, pa.float32(), mask=~readable)

    errors = [error or None for error in rows.errors]
    columns = [pa.array(rows.paths), pa.array(chosen, pa.string()), column(largest)]
    columns += [pa.array(errors, pa.string()), *(column(values) for values in found.T)]
    return pa.table(columns, schema=schema), chosen
