"""The rows of a manifest: CSV, TSV, JSON Lines, JSON or Parquet, with a path and a label each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from cwerm.data.extra import MOST, of_values
from cwerm.data.files.file_source import split_in_name
from cwerm.data.labels import Label
from cwerm.data.names import suffix
from cwerm.errors import did_you_mean
from cwerm.store.plain_types import open_plain

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
PATHS = (
    "path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "file",
    "image_path",
    "uri",
    "url",
)
SPLIT = "split"


class Row(NamedTuple):
    """One image as the manifest has it."""

    path: str
    label: Label
    split: str
    """``train``, ``test`` or ``val``."""


class Columns(NamedTuple):
    """Which columns hold what."""

    path: str
    label: str
    split: str | None


class Table(NamedTuple):
    """All that a manifest tells."""

    rows: list[Row]
    columns: Columns
    extra: pa.Table
    """The other columns that hold plain values, a row for each of ``rows``."""
    left_out: list[str]
    """Names of the other columns that don't."""


Cells = Iterator[tuple[str, dict[str, Any]]]  # each with words for where it stands


def read_rows(data: bytes, name: str, image: str, label: str) -> Table:
    """All rows of the manifest called ``name``; ``image`` and ``label`` are columns of the job.

    Raises:
        ValueError: it can't be read, a column or a value is missing, or a path has two labels.
    """
    names, cells = _cells(data, name)
    columns = _columns(names, image, label)
    found: dict[str, Row] = {}
    others: dict[str, list[Any]] = {n: [] for n in names if n.strip() and n not in columns}
    for where, values in cells:
        row = _row(where, values, columns)
        first = found.setdefault(row.path, row)
        if first is row:
            for other, listed in others.items():
                listed.append(values.get(other))
        elif first != row:
            what = "labels" if first.label != row.label else "splits"
            raise ValueError(
                f"{where}: '{row.path}' stands there with two {what}; keep one of the rows"
            )
    if not found:
        raise ValueError("has no rows")
    is_text = suffix(name) in (".csv", ".tsv")
    kept: dict[str, pa.Array] = {}
    left_out: list[str] = []
    for other, listed in others.items():
        column = of_values(listed, text=is_text) if len(kept) < MOST else None
        if column is None:
            left_out.append(other)
        else:
            kept[other] = column
    return Table([*found.values()], columns, pa.table(kept), left_out)


def _cells(data: bytes, name: str) -> tuple[Sequence[str], Cells]:
    kind = suffix(name)
    if kind not in SUFFIXES:
        return _of_parquet(data, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8; save it as UTF-8") from None
    if kind in (".csv", ".tsv"):
        return _of_csv(text, kind)
    return _of_json(text) if kind == ".json" else _of_lines(text)


def _of_csv(text: str, kind: str) -> tuple[Sequence[str], Cells]:
    head = text.partition("\n")[0]
    delimiter = "\t" if kind == ".tsv" else ";" if ";" in head and "," not in head else ","
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def cells() -> Cells:
        try:
            for line in lines:
                yield f"line {lines.line_num}", {k: v for k, v in line.items() if k is not None}
        except csv.Error as error:
            raise ValueError(f"line {lines.line_num}: {error}") from None

    try:
        return lines.fieldnames or [], cells()
    except csv.Error as error:
        raise ValueError(f"line 1: {error}") from None


def _of_lines(text: str) -> tuple[Sequence[str], Cells]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line)))
            except ValueError:
                raise ValueError(f"line {number}: is no JSON") from None
    return _objects(found)


def _of_json(text: str) -> tuple[Sequence[str], Cells]:
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(listed, list):
        raise ValueError("is no list of objects; write one object a row, in a list or a line each")
    return _objects([(f"row {number}", value) for number, value in enumerate(listed, 1)])


def _objects(found: list[tuple[str, Any]]) -> tuple[Sequence[str], Cells]:
    names: dict[str, None] = {}
    for where, value in found:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: is no object with a path and a label")
        names |= dict.fromkeys(value)
    return [*names], iter(found)


def _of_parquet(data: bytes, name: str) -> tuple[Sequence[str], Cells]:
    try:
        file, _ = open_plain(io.BytesIO(data), name)
        plain = [f.name for f in file.schema_arrow if not pa.types.is_nested(f.type)]
        rows = file.read(plain).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"can't be read: {str(error).splitlines()[0]}") from None
    return plain, ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _columns(names: Sequence[str], image: str, label: str) -> Columns:
    path = next((name for name in (image, *PATHS) if name in names), None)
    listed = ", ".join(names)
    if path is None:
        hint = did_you_mean("path", names) or f" (there are: {listed})"
        raise ValueError(f"has no column of paths, such as 'path'; set data.image_column{hint}")
    if label not in names:
        hint = did_you_mean(label, names) or f" (there are: {listed})"
        raise ValueError(f"has no column '{label}'; set data.label_column{hint}")
    return Columns(path, label, SPLIT if SPLIT in names else None)


def _row(where: str, values: dict[str, Any], columns: Columns) -> Row:
    path, label = values.get(columns.path), values.get(columns.label)
    if not isinstance(path, str) or not path.strip():
        raise ValueError(
            f"{where}: has no text in column '{columns.path}'; name a file or drop the row"
        )
    if label is None or label == "":
        raise ValueError(
            f"{where}: has no label in column '{columns.label}'; give it one or drop the row"
        )
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise ValueError(f"{where}: its label {label!r} is neither text nor a whole number")
    if not columns.split:
        return Row(path, label, "train")
    told = str(values.get(columns.split) or "")
    known = split_in_name(told)
    if known is None:
        raise ValueError(
            f"{where}: '{told}' in column '{columns.split}' is no split; write train, test or val"
        )
    return Row(path, label, known.split)
