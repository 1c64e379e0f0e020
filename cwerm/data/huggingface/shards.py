"""One shard: an Arrow stream, of which each record batch is read alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cwerm.data.parquet.footers import Columns, Footer, described
from cwerm.data.parquet.labels import NO_LABEL, class_names
from cwerm.data.parquet.rows import Row, has_changed, rows_of
from cwerm.data.source import Chunk
from cwerm.store.plain_types import open_schema

END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream that was written to its end


@dataclass(frozen=True)
class Header:
    """What stands at the beginning of a shard.

    Attributes:
        schema: of plain types.
        extensions: name and description of the type that a column was written from.
    """

    schema: pa.Schema
    extensions: Mapping[str, tuple[str, bytes]]

    def footer(self, columns: Columns, where: str) -> Footer:
        """How images and labels are held, without the rows.

        Raises:
            UserError: as `described`.
        """
        layout, text, others = described(self.schema, self.extensions, columns, where)
        names = class_names(self.schema.metadata, columns.label)
        return Footer((), (), layout, names, text, None, None, others)


@dataclass(frozen=True)
class Batch:
    """A record batch of a shard: where it begins, its rows and its bytes, and whether any row has a label."""

    start: int
    rows: int
    size: int
    labelled: bool


def read_header(handle: Any, where: str) -> Header:
    """The schema of a shard.

    Raises:
        UserError: a type that may run code.
        pyarrow.ArrowInvalid: it is no Arrow stream.
    """
    message = _next(handle)
    if message is None or message.type != "schema":
        raise pa.ArrowInvalid("it is no Arrow stream")
    plain, extensions = open_schema(message.serialize().to_pybytes(), f"data.source: '{where}'")
    return Header(plain, extensions)


def index(handle: Any, header: Header, columns: Columns) -> Iterator[tuple[Batch, pa.Array]]:
    """The record batches of a shard whose header has been read, each with the paths of its images.

    Raises:
        pyarrow.ArrowInvalid: it is cut short, or damaged.
    """
    begin = handle.tell()
    handle.seek(max(0, handle.size() - len(END)))
    if handle.read(len(END)) != END:
        raise pa.ArrowInvalid("it is cut short")
    handle.seek(begin)
    while True:
        start = handle.tell()
        message = _next(handle)
        if message is None:
            return
        batch = _batch(message, header)
        images = batch.column(columns.image)
        images.validate()
        has_labels = _labelled(batch.column(columns.label))
        yield Batch(start, len(batch), message.body.size, has_labels), _paths(images)


def read_rows(
    handle: Any,
    header: Header,
    footer: Footer,
    batches: Sequence[Batch],
    columns: Columns,
    others: Sequence[str],
    chunk: Chunk,
    where: str,
) -> Iterator[Row]:
    """The rows of the chunk.

    Raises:
        UserError: a row has no label or one that can't be used, or the shard has other rows than when it
            was opened.
        pyarrow.ArrowInvalid: it is damaged.
    """
    first, end = 0, chunk.start + chunk.size
    for known in batches:
        begin, stop = max(chunk.start, first), min(end, first + known.rows)
        if begin < stop:
            handle.seek(known.start)
            message = _next(handle)
            if message is None:
                raise has_changed(where)
            batch = _batch(message, header).select([columns.image, columns.label, *others])
            batch.validate(full=True)
            if len(batch) != known.rows:
                raise has_changed(where)
            part = batch.slice(begin - first, stop - begin)
            yield from rows_of(part, footer, columns, others, begin, where)
        first += known.rows


def _next(handle: Any) -> pa.Message | None:
    try:
        return pa.ipc.read_message(handle)
    except EOFError:
        return None


def _batch(message: pa.Message, header: Header) -> pa.RecordBatch:
    if message.type != "record batch":
        raise pa.ArrowInvalid(f"it holds a {message.type}, where rows should be")
    return pa.ipc.read_record_batch(message, header.schema)


def _labelled(labels: pa.Array) -> bool:
    labels.validate()
    if labels.null_count == len(labels):
        return False
    return not pa.types.is_integer(labels.type) or pc.max(labels).as_py() > NO_LABEL


def _paths(images: pa.Array) -> pa.Array:
    """The paths of images, as far as they have some."""
    if not pa.types.is_struct(images.type) or images.type.get_field_index("path") < 0:
        return pa.array([], pa.string())
    paths = images.field("path")
    paths.validate(full=True)
    # a copy, which outlives the file
    return pa.array(paths.drop_null().to_pylist(), pa.string())
