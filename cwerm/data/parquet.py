"""Parquet files with a column of images and a column of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cwerm.data import source
from cwerm.data.files import SPLIT_NAMES, FileSource, held_out_split
from cwerm.data.listing import Listing
from cwerm.data.source import Chunk, Sample
from cwerm.errors import UserError
from cwerm.schema import open_parquet
from cwerm.storage import filesystem

BATCH_ROWS = 128  # rows held at a time,
BATCH_BYTES = 16 * 2**20  # and bytes, where images are large
READ_BYTES = 8 * 2**20  # of a column, at a time
# A row group of many parts is read from its start for each chunk, so it makes few chunks.
CHUNKS_A_GROUP, PARTS_A_CHUNK = 4, 16


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says of itself: rows and bytes of images of each row group, and the schema."""

    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    schema: pa.Schema


class Parquet(FileSource):
    """Rows of one Parquet file (all ``train``) or of all below a folder.

    Files below ``train/``, ``test/`` or ``val/``, or whose names start so, are those splits, and
    ``val`` is the test split where there is no ``test``; without any such name all rows are the
    training split. Images are encoded bytes (binary, or a struct ``{bytes, path}``) or uint8 or
    uint16 arrays [h, w] or [h, w, c] (fixed-shape tensor or nested lists); labels are text or
    integers. Class names come from the Hugging Face ``ClassLabel`` in the schema's metadata, where
    there is one.
    """

    def __init__(
        self, listing: Listing, image_column: str = "image", label_column: str = "label"
    ) -> None:
        files = tuple(file for file in listing.files if file.path.endswith(".parquet"))
        super().__init__(listing, files)
        if not files:
            raise UserError(f"data.source: no .parquet file below '{self.uri}'; check the path")
        self.image_column = image_column
        self.label_column = label_column
        with ThreadPoolExecutor(16) as pool:
            footers = pool.map(self._footer, (file.path for file in files))
            self._footers = dict(zip((file.path for file in files), footers, strict=True))
        if not any(sum(footer.group_rows) for footer in self._footers.values()):
            raise UserError(f"data.source: '{self.uri}' holds no rows; check the path")
        self._splits = self._split_of_files()
        self._class_names = _class_names(self._footers[files[0].path].schema, label_column)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_footers": {}, "_splits": {}}

    def _footer(self, path: str) -> Footer:
        system, root = filesystem(self.uri, self.s3)
        where = f"{self.uri}/{path}"
        try:
            with system.open_input_file(f"{root}/{path}") as handle:
                file = open_parquet(handle, f"data.source: '{where}'")
            metadata, schema = file.metadata, file.schema_arrow
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"data.source: '{where}' is not a readable Parquet file "
                f"({str(error).splitlines()[0]}); replace it or move it away"
            ) from error
        for key, column in [("image", self.image_column), ("label", self.label_column)]:
            if column not in schema.names:
                raise UserError(
                    f"data.{key}_column: '{where}' has no column '{column}'; "
                    f"its columns are {', '.join(schema.names)}"
                )
        if not _is_image(kind := schema.field(self.image_column).type):
            raise UserError(
                f"data.image_column: column '{self.image_column}' of '{where}' is {kind}; it must "
                "be encoded images (binary or {bytes, path}) or uint8 arrays [h, w] or [h, w, c]"
            )
        if not _is_label(kind := schema.field(self.label_column).type):
            raise UserError(
                f"data.label_column: column '{self.label_column}' of '{where}' is {kind}; "
                "it must be text or integers"
            )
        groups = range(metadata.num_row_groups)
        return Footer(
            tuple(metadata.row_group(group).num_rows for group in groups),
            tuple(_image_bytes(metadata, group, self.image_column) for group in groups),
            schema,
        )

    def _split_of_files(self) -> dict[str, str]:
        named = {path: _split_in_name(path) for path in self._footers}
        if len(named) == 1 or not any(named.values()):
            return dict.fromkeys(named, "train")
        renamed = held_out_split(split for split in named.values() if split)
        splits = {}
        for path, split in named.items():
            if split is None:
                raise UserError(
                    f"data.source: other files below '{self.uri}' are named train, test or val, "
                    f"but not '{path}'; rename it or move it away"
                )
            splits[path] = renamed[split]
        return splits

    def fingerprint(self) -> str:
        """A hash of the files and the chosen columns."""
        return f"{super().fingerprint()}:{self.image_column}:{self.label_column}"

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of whole row groups of one file; larger groups are cut up into several parts.

        The parts that a row group is cut into are read as one chunk, or as very few.
        """
        chunks = []
        for path, footer in self._footers.items():
            if self._splits[path] == split:
                start = 0
                for parts in _stretches(footer, rows):
                    for sizes in _divide(parts):
                        several = sizes if len(sizes) > 1 else ()
                        chunks.append(Chunk(split, start, sum(sizes), (path,), parts=several))
                        start += sum(sizes)
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's rows, streamed."""
        (path,) = chunk.files
        system, root = filesystem(self.uri, self.s3)
        row, end = chunk.start, chunk.start + chunk.size
        try:
            with system.open_input_file(f"{root}/{path}") as handle:
                # pages as they are asked for, rather than whole columns of a row group
                where = f"data.source: '{self.uri}/{path}'"
                file = open_parquet(handle, where, buffer_size=READ_BYTES, pre_buffer=False)
                groups, first = _groups(file.metadata, chunk)
                for whole in file.iter_batches(
                    batch_size=_batch_rows(file.metadata, groups, self.image_column),
                    row_groups=groups,
                    columns=[self.image_column, self.label_column],
                    use_threads=False,
                ):
                    batch = whole.slice(max(0, row - first), max(0, end - max(row, first)))
                    first += whole.num_rows
                    labels = batch.column(self.label_column).to_pylist()
                    images = _images(batch.column(self.image_column))
                    for (image, name), label in zip(images, labels, strict=True):
                        if label is None:
                            raise UserError(
                                f"data.label_column: '{self.uri}/{path}' has no "
                                f"'{self.label_column}' in row {row}; drop such rows"
                            )
                        yield Sample(image, label, name or f"{path}[{row}]")
                        row += 1
                    if row == end:
                        break
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"data.source: '{self.uri}/{path}' can't be read after row {row} "
                f"({str(error).splitlines()[0]}); replace it"
            ) from error

    def class_names(self) -> list[str] | None:
        """The names in the schema's metadata, None without them."""
        return self._class_names


def _split_in_name(path: str) -> str | None:
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if folder in SPLIT_NAMES:
            return SPLIT_NAMES[folder]
    return next((split for split in SPLIT_NAMES.values() if name.startswith(split)), None)


def _cut(group: int, rows: int) -> list[int]:
    """Sizes of the near-equal pieces, of at most ``rows`` rows, of a row group."""
    pieces = -(-group // rows)
    return [(group * (i + 1)) // pieces - (group * i) // pieces for i in range(pieces)]


def _stretches(footer: Footer, rows: int) -> list[list[int]]:
    """Rows of the parts of a file, in lists: what shares a row group stands in one list."""
    stretches: list[list[int]] = []
    size, held, shares = 0, 0.0, False  # of the part in hand; whether it begins within a row group

    def close(inside: bool) -> None:
        nonlocal size, held, shares
        if size:
            stretches.append([size]) if not shares else stretches[-1].append(size)
        size, held, shares = 0, 0.0, inside

    for group, bytes_ in zip(footer.group_rows, footer.group_bytes, strict=True):
        a_row = bytes_ / max(1, group)
        fitting = max(1, int(source.PART_BYTES / a_row)) if a_row else rows
        for number, piece in enumerate(_cut(group, min(rows, fitting))):
            if size + piece > rows or held + piece * a_row > source.PART_BYTES:
                close(inside=number > 0)
            size, held = size + piece, held + piece * a_row
    close(inside=False)
    return stretches


def _divide(parts: list[int]) -> list[tuple[int, ...]]:
    """The parts of a stretch by chunk: enough chunks for some workers to share a large row group."""
    count = min(CHUNKS_A_GROUP, -(-len(parts) // PARTS_A_CHUNK))
    ends = np.cumsum([0, *_cut(len(parts), -(-len(parts) // count))])
    return [tuple(parts[a:b]) for a, b in pairwise(ends)]


def _image_bytes(metadata: pq.FileMetaData, group: int, column: str) -> int:
    """Bytes of the images of a row group, before compression."""
    row_group = metadata.row_group(group)
    chunks = [row_group.column(index) for index in range(row_group.num_columns)]
    return sum(
        c.total_uncompressed_size for c in chunks if f"{c.path_in_schema}.".startswith(f"{column}.")
    )


def _batch_rows(metadata: pq.FileMetaData, groups: list[int], column: str) -> int:
    rows = sum(metadata.row_group(group).num_rows for group in groups)
    held = sum(_image_bytes(metadata, group, column) for group in groups)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES * rows / held))) if held else BATCH_ROWS


def _groups(metadata: pq.FileMetaData, chunk: Chunk) -> tuple[list[int], int]:
    """The row groups that hold the chunk, and the first row of the first of them."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    starts = [sum(sizes[:group]) for group in range(len(sizes))]
    groups = [
        group
        for group, (start, size) in enumerate(zip(starts, sizes, strict=True))
        if start < chunk.start + chunk.size and chunk.start < start + size
    ]
    return groups, starts[groups[0]]


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = info.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names") if feature.get("_type") == "ClassLabel" else None


def _is_label(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return is_text or pa.types.is_integer(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    depth = 0
    if isinstance(kind, pa.FixedShapeTensorType):
        depth, kind = len(kind.shape), kind.value_type
    while _is_list(kind):
        depth, kind = depth + 1, kind.value_type
    if depth:
        return depth in (2, 3) and kind in (pa.uint8(), pa.uint16())
    return _is_binary(kind)


def _images(column: pa.Array) -> Iterator[tuple[bytes | np.ndarray, str | None]]:
    """Each image and, where the column has one, its path; ``b""`` for a missing image."""
    if pa.types.is_struct(column.type):
        for value in column.to_pylist():
            yield (value or {}).get("bytes") or b"", (value or {}).get("path")
    elif _is_binary(column.type):
        for value in column.to_pylist():
            yield value or b"", None
    else:
        is_tensor = isinstance(column.type, pa.FixedShapeTensorType)
        for scalar in column:
            if scalar.is_valid:
                yield scalar.to_numpy() if is_tensor else _nested(scalar), None
            else:
                yield b"", None


def _nested(scalar: pa.ListScalar) -> np.ndarray:
    """A nested list as an array; a ragged one stays flat, which `decode` rejects."""
    values, shape = scalar.values, [len(scalar.values)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            shape = [-1]
        elif shape != [-1]:
            shape.append(lengths[0])
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)
