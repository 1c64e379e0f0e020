"""The rows of a Parquet file, streamed: a few images at a time, whatever the size of a row group."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.data.labels import Label
from cwerm.data.parquet.footers import Columns, Footer, readable
from cwerm.data.parquet.images import Cell, cells
from cwerm.data.parquet.labels import NO_LABEL, label_of
from cwerm.data.source import Chunk
from cwerm.errors import UserError, shown

BATCH_ROWS = 128  # rows held at a time,
BATCH_BYTES = 16 * 2**20  # and bytes, where images are large


def read_rows(
    file: pq.ParquetFile, footer: Footer, columns: Columns, chunk: Chunk, where: str
) -> Iterator[tuple[int, Cell, Label]]:
    """Number, image and label of each row of the chunk.

    Raises:
        UserError: a row group is damaged, a row has no label or one that can't be used, or the file has
            other rows than when the chunk was made.
    """
    row, end, first = chunk.start, chunk.start + chunk.size, 0
    names = [columns.image] if footer.label is not None else [columns.image, columns.label]
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
            images = cells(batch.column(columns.image), footer.layout)
            labels = _labels(batch, footer, columns.label, row, where)
            for cell, label in zip(images, labels, strict=True):
                yield row, cell, label
                row += 1
    if row != end:
        raise UserError(f"data.source: '{shown(where)}' has changed since it was opened; run again")


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
