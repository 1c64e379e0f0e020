"""The rows of a Parquet file, streamed: a few images at a time, whatever the size of a row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.data.extra import values_of
from cwerm.data.labels import Label
from cwerm.data.parquet.footers import Columns, Footer, readable
from cwerm.data.parquet.images import Cell, cells
from cwerm.data.parquet.labels import NO_LABEL, label_of
from cwerm.data.source import Chunk
from cwerm.errors import UserError, blame, shown

BATCH_ROWS = 128  # rows held at a time,
BATCH_BYTES = 16 * 2**20  # and bytes, where images are large


Row = tuple[int, Cell, Label, dict[str, Any]]  # its number, image, label and other columns


def read_rows(
    file: pq.ParquetFile,
    footer: Footer,
    columns: Columns,
    others: Sequence[str],
    chunk: Chunk,
    where: str,
) -> Iterator[Row]:
    """The rows of the chunk, each with the columns ``others`` of the file.

    Raises:
        UserError: a row group is damaged, a row has no label or one that can't be used, or the file has
            other rows than when the chunk was made.
    """
    row, end, first = chunk.start, chunk.start + chunk.size, 0
    names = [columns.image, *others, *([] if footer.label is not None else [columns.label])]
    for group, rows in enumerate(footer.group_rows):
        if first + rows <= row or first >= end:
            first += rows
            continue
        batches = file.iter_batches(
            batch_size=_batch_rows(rows, footer.group_bytes[group]),
            row_groups=[group],
            columns=names,
            use_threads=False,
        )
        while first < end:
            with readable(where, f"after row {row}, in row group {group}"):
                whole = next(batches, None)
            if whole is None:
                break
            batch = whole.slice(max(0, row - first), max(0, end - max(row, first)))
            first += whole.num_rows
            for found in rows_of(batch, footer, columns, others, row, where):
                yield found
                row += 1
    if row != end:
        raise has_changed(where)


def has_changed(where: str) -> UserError:
    """What to say of a file that has other rows than when it was opened."""
    return UserError(f"data.source: '{shown(where)}' has changed since it was opened; run again")


def rows_of(
    batch: pa.RecordBatch,
    footer: Footer,
    columns: Columns,
    others: Sequence[str],
    row: int,
    where: str,
) -> Iterator[Row]:
    """The rows of a batch, of which the first has the number ``row`` in its file.

    Raises:
        UserError: a row has no label, or one that can't be used.
    """
    images = cells(batch.column(columns.image), footer.layout)
    labels = _labels(batch, footer, columns.label, row, where)
    columns_of_others = [_values(batch, name, where) for name in others]
    for cell, label, *values in zip(images, labels, *columns_of_others, strict=True):
        yield row, cell, label, dict(zip(others, values, strict=True))
        row += 1


def _values(batch: pa.RecordBatch, name: str, where: str) -> list[Any]:
    with blame(f"data.source: column '{shown(name)}' of '{shown(where)}'"):
        return values_of(batch.column(name))


def _batch_rows(rows: int, held: int) -> int:
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES * rows / held))) if held else BATCH_ROWS


def _labels(
    batch: pa.RecordBatch, footer: Footer, column: str, row: int, where: str
) -> Iterator[Label]:
    values = [footer.label] * len(batch)
    if footer.label is None:
        values = batch.column(column).to_pylist()
    for number, value in enumerate(values, start=row):
        try:
            label = label_of(value, footer.names)
        except ValueError as error:
            raise UserError(
                f"data.label_column: '{shown(where)}' in row {number}: {error}; "
                "drop such rows or correct them"
            ) from None
        if label is None:
            told = f" ({value})" if value == NO_LABEL else ""
            raise UserError(
                f"data.label_column: '{shown(where)}' has no '{column}'{told} in row {number}; "
                "drop such rows"
            )
        yield label
