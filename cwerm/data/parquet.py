"""Parquet files with a column of images and a column of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cwerm.data.files import SPLIT_NAMES, FileSource, held_out_split
from cwerm.data.listing import Listing
from cwerm.data.source import Chunk, Sample
from cwerm.errors import UserError
from cwerm.schema import open_parquet
from cwerm.storage import filesystem

BATCH_ROWS = 128  # rows decoded at a time: bounds memory for large images


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says of itself: rows of each row group, and the schema."""

    group_rows: tuple[int, ...]
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
        return Footer(tuple(metadata.row_group(group).num_rows for group in groups), schema)

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
        """Runs of whole row groups of one file, up to ``rows`` rows; larger groups are cut up."""
        chunks = []
        for path, footer in self._footers.items():
            if self._splits[path] != split:
                continue
            start = size = 0
            pieces = [p for group in footer.group_rows for p in _cut(group, rows)]
            for group in (*pieces, 0):  # the 0 closes the last run
                if size and (size + group > rows or not group):
                    chunks.append(Chunk(split, start, size, (path,)))
                    start, size = start + size, 0
                size += group
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's rows, streamed."""
        (path,) = chunk.files
        system, root = filesystem(self.uri, self.s3)
        row, end = chunk.start, chunk.start + chunk.size
        try:
            with system.open_input_file(f"{root}/{path}") as handle:
                file = open_parquet(handle, f"data.source: '{self.uri}/{path}'")
                groups, first = _groups(file.metadata, chunk)
                for whole in file.iter_batches(
                    batch_size=BATCH_ROWS,
                    row_groups=groups,
                    columns=[self.image_column, self.label_column],
                ):
                    batch = whole.slice(max(0, row - first), max(0, end - max(row, first)))
                    first += whole.num_rows
                    if row == end:
                        break
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
