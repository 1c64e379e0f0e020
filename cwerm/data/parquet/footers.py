"""What a Parquet file says of itself: rows, sizes, how it holds images and labels. No value is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cwerm.data.parquet.images import Layout, layout_of
from cwerm.data.parquet.labels import NO_LABEL, class_names, is_label, is_text
from cwerm.data.parquet.names import value_in_path
from cwerm.errors import UserError, shown
from cwerm.store.plain_types import open_plain

READ_BYTES = 8 * 2**20  # of a column, at a time


@dataclass(frozen=True)
class Columns:
    """The columns that are read, by the job's keys."""

    image: str = "image"
    label: str = "label"


@dataclass(frozen=True)
class Footer:
    """What is known of a file before its rows are read.

    Attributes:
        group_rows: rows of each row group.
        group_bytes: bytes of the images of each row group, before compression.
        layout: how the column of images holds them.
        names: the names of integer labels, None without.
        is_text: whether labels are text.
        label: the label of all rows, where a folder's name tells it.
        labelled: False where no row has a label, None where that is not known.
        others: names and types of all other columns.
    """

    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    layout: Layout
    names: tuple[str, ...] | None
    is_text: bool
    label: str | None
    labelled: bool | None
    others: tuple[tuple[str, pa.DataType], ...] = ()

    @property
    def rows(self) -> int:
        """All rows of the file."""
        return sum(self.group_rows)


@contextmanager
def readable(where: str, place: str = "", kind: str = "Parquet file") -> Iterator[None]:
    """Turn what Arrow says of a damaged file into one line that names it, and the place within it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if place:
            raise UserError(
                f"data.source: '{shown(where)}' can't be read {place} ({reason}); replace it"
            ) from error
        raise UserError(
            f"data.source: '{shown(where)}' is not a readable {kind} ({reason}); "
            "replace it or move it away"
        ) from error


def open_file(
    handle: Any, where: str, path: str, columns: Columns
) -> tuple[pq.ParquetFile, Footer | None]:
    """A file to read, its columns typed as Parquet itself types them; no footer where it has no rows.

    Raises:
        UserError: a column is missing, is there twice or is of a type that is none of ours.
        pyarrow.ArrowException: it is no whole Parquet file.
    """
    where = shown(where)
    # pages as they are asked for, rather than whole columns of a row group
    file, extensions = open_plain(
        handle, f"data.source: '{where}'", buffer_size=READ_BYTES, pre_buffer=False
    )
    if not file.metadata.num_rows:
        return file, None
    schema, label = file.schema_arrow, value_in_path(path, columns.label)
    layout, text, others = described(schema, extensions, columns, where, label)
    if columns.label in schema.names:
        label = None
    metadata = file.metadata
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    of_image = [i for i, p in enumerate(paths) if f"{p}.".startswith(f"{columns.image}.")]
    of_label = [i for i, p in enumerate(paths) if p == columns.label]
    return file, Footer(
        tuple(group.num_rows for group in groups),
        tuple(sum(g.column(i).total_uncompressed_size for i in of_image) for g in groups),
        layout,
        class_names(metadata.metadata, columns.label),
        text,
        label,
        _labelled([group.column(of_label[0]) for group in groups if group.num_rows])
        if of_label
        else True,
        others,
    )


def described(
    schema: pa.Schema,
    extensions: Mapping[str, tuple[str, bytes]],
    columns: Columns,
    where: str,
    label: str | None = None,
) -> tuple[Layout, bool, tuple[tuple[str, pa.DataType], ...]]:
    """How a table holds images, whether labels are text, and its other columns.

    Args:
        schema: of plain types.
        extensions: name and description of the type that a column was written from.
        columns: those that are read.
        where: the table's name for a person.
        label: that of all rows, where a folder's name tells it.

    Raises:
        UserError: a column is missing, is there twice or is of a type that is none of ours.
    """
    for key, column in [("image", columns.image), ("label", columns.label)]:
        count = schema.names.count(column)
        if count != 1 and not (key == "label" and label is not None):
            raise UserError(
                f"data.{key}_column: '{where}' has the column '{column}' twice; rename one"
                if count
                else f"data.{key}_column: '{where}' has no column '{column}'; "
                f"its columns are {_listed(schema.names)}"
            )
    written = extensions.get(columns.image, ("", b""))
    kind = schema.field(columns.image).type
    layout = layout_of(kind, *written)
    if layout is None:
        raise UserError(
            f"data.image_column: column '{columns.image}' of '{where}' is {written[0] or kind}; it "
            "must be encoded images (binary or {bytes, path}) or uint8 arrays [h, w] or [h, w, c]"
        )
    text = True
    if columns.label in schema.names:
        kind = _storage(schema.field(columns.label).type)
        if not is_label(kind) or (pa.types.is_binary(kind) and columns.label == columns.image):
            raise UserError(
                f"data.label_column: column '{columns.label}' of '{where}' is {kind}; "
                "it must be text or integers"
            )
        text = is_text(kind)
    once = Counter(schema.names)
    others = [field for field in schema if once[field.name] == 1 and not _is_index(field.name)]
    ours = (columns.image, columns.label)
    return layout, text, tuple((f.name, f.type) for f in others if f.name not in ours)


def _is_index(name: str) -> bool:
    """Whether pandas wrote the column, to find its index again."""
    return name.startswith("__index_level_")


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return shown(", ".join(names[:most])) + more


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _labelled(chunks: list[Any]) -> bool | None:
    """Whether a label column has any label, by its statistics: no label is null or -1."""
    for chunk in chunks:
        found = chunk.statistics
        if found is None:
            return None
        is_empty = found.has_null_count and found.null_count == chunk.num_values
        if not is_empty and not found.has_min_max:
            return None
        if not is_empty and not found.min == found.max == NO_LABEL:
            return True
    return False
