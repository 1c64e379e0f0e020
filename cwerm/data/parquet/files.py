"""The rows of one Parquet file, or of all below a folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import pyarrow as pa

from cwerm.data.extra import told_left_out, unified
from cwerm.data.files.file_source import FileSource, same_kind_of_names
from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import patiently, patiently_each
from cwerm.data.names import is_side_file
from cwerm.data.parquet.footers import Columns, Footer, open_file, readable
from cwerm.data.parquet.images import Cell
from cwerm.data.parquet.names import has_parquet_name, split_of
from cwerm.data.parquet.plan import plan
from cwerm.data.parquet.rows import Row, has_changed, read_rows
from cwerm.data.source import Chunk, Sample
from cwerm.errors import UserError, shown
from cwerm.store.storage import filesystem, open_storage


class Parquet(FileSource):
    """Rows of one Parquet file (all ``train``) or of all below a folder.

    A split is told by the name of a folder or file (`split_in_name`), and ``val`` is the test split
    where there is no ``test``; without any such name all rows are the training split. Images are
    encoded bytes (binary, or a struct ``{bytes, path}``) or uint8 or uint16 arrays [h, w] or [h, w, c]
    (tensors of Arrow or Ray Data, or nested lists); labels are text or whole numbers, or stand in the
    name of a folder (``label=cat``). Integers are decoded by the file's own Hugging Face
    ``ClassLabel``, where it has one, so that files may number the classes as they like.
    """

    by_place = False
    """Whether rows name the images, where paths in the column of images do not."""

    def __init__(
        self,
        listing: Listing,
        image_column: str = "image",
        label_column: str = "label",
        files: tuple[FoundFile, ...] = (),
    ) -> None:
        """The Parquet files of the listing by name, or ``files`` of it.

        Raises:
            UserError: a file is no sound Parquet, lacks a column, or names and labels don't fit together.
        """
        self.uri, self.s3 = listing.uri, listing.s3
        files = files or tuple(file for file in listing.files if has_parquet_name(file.path))
        self.columns = Columns(image_column, label_column)
        for file in files:
            if file.problem:
                raise UserError(
                    f"data.source: '{self.uri}/{shown(file.path)}': {file.problem}; "
                    "replace it or move it away"
                )
        with ThreadPoolExecutor(16) as pool:
            footers = pool.map(self._footer, (file.path for file in files))
            found = dict(zip((file.path for file in files), footers, strict=True))
        self._footers = {path: footer for path, footer in found.items() if footer}
        if not self._footers:
            raise UserError(f"data.source: '{self.uri}' holds no rows; check the path")
        self._remarks: list[str] = []
        self._extra, left_out = unified(dict(footer.others) for footer in self._footers.values())
        self._splits = self._split_of_files()
        self._class_names = self._names_of_files()
        others = tuple(f for f in listing.files if f not in files and not is_side_file(f.path))
        has_paths = any(footer.layout.kind == "struct" for footer in self._footers.values())
        self.has_pictures = bool(others) and has_paths  # which cells without bytes may name
        super().__init__(listing, (*files, *others) if self.has_pictures else files)
        if others:
            self._remarks.append(
                f"{len(others):,} file(s) beside the Parquet files are read only where "
                f"'{image_column}' names them"
                if has_paths
                else f"{len(others):,} file(s) beside the Parquet files are left out"
            )
        self._remarks += told_left_out(left_out)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_footers": {}, "_splits": {}, "_class_names": None}

    def _footer(self, path: str) -> Footer | None:
        where = f"{self.uri}/{path}"
        with self._open(path) as handle, readable(where):
            return open_file(handle, where, path, self.columns)[1]

    def _open(self, path: str) -> pa.NativeFile:
        system, root = filesystem(self.uri, self.s3)
        where = shown(f"{self.uri}/{path}")
        return patiently(lambda: system.open_input_file(f"{root}/{path}"), where)

    def _named_split(self, path: str) -> str | None:
        """The split that the file's name tells."""
        return split_of(path, self.columns.label)

    def _split_of_files(self) -> dict[str, str]:
        named = {path: self._named_split(path) for path in self._footers}
        if all(named.values()):
            self._leave_out_unlabelled(named)
        return same_kind_of_names(named, self.uri)

    def _leave_out_unlabelled(self, splits: dict[str, str | None]) -> None:
        """Drop a test split whose labels are hidden, where the validation split can serve instead."""
        test = [path for path, split in splits.items() if split == "test"]
        if len(splits) == 1 or not test or any(self._is_labelled(path) for path in test):
            return
        if "val" not in splits.values():
            raise UserError(
                f"data.source: the test split below '{self.uri}' has no labels (-1 or none in all "
                "rows); move it away to have a test split drawn, or give data.test"
            )
        for path in test:
            del splits[path]
            del self._footers[path]
        self._remarks.append(
            "the test split has no labels (-1 or none in all rows): the validation split is the "
            "test split"
        )

    def _is_labelled(self, path: str) -> bool:
        """Whether any row has a label; where the footer does not say, the column is read."""
        labelled = self._footers[path].labelled
        if labelled is not None:
            return labelled
        where = f"{self.uri}/{path}"
        with self._open(path) as handle, readable(where, "in its labels"):
            file, _ = open_file(handle, where, path, self.columns)
            for batch in file.iter_batches(columns=[self.columns.label]):
                if any(v not in (None, -1) for v in batch.column(0).to_pylist()):
                    return True
        return False

    def _names_of_files(self) -> list[str] | None:
        """The classes in order, as the files name them; None where a file names none.

        Raises:
            UserError: some files have integers as labels without names, and others have names.
        """
        train_first = sorted(self._footers, key=lambda path: self._splits[path] != "train")
        footers = {path: self._footers[path] for path in train_first}
        lists = {footer.names for footer in footers.values() if footer.names}
        bare = [p for p, f in footers.items() if not f.names and not f.is_text]
        if bare and (lists or len(bare) < len(footers)):
            other = next(path for path in footers if path not in bare)
            raise UserError(
                f"data.source: labels of '{shown(bare[0])}' are integers without names, and those of "
                f"'{shown(other)}' are names; write the names into all files"
            )
        if len(lists) > 1:
            self._remarks.append(
                "the files number the classes differently: each is decoded by its own names"
            )
        if any(footer.names is None for footer in footers.values()):
            return None
        return list(dict.fromkeys(name for f in footers.values() for name in f.names or ()))

    def fingerprint(self) -> str:
        """A hash of the files and the chosen columns."""
        return f"{super().fingerprint()}:{self.columns.image}:{self.columns.label}"

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of whole row groups of one file; see `plan`."""
        chunks = []
        for path, footer in self._footers.items():
            if self._splits[path] == split:
                start = 0
                for parts in plan(footer.group_rows, footer.group_bytes, rows):
                    several = parts if len(parts) > 1 else ()
                    chunks.append(Chunk(split, start, sum(parts), (path,), parts=several))
                    start += sum(parts)
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's rows, streamed."""
        return patiently_each(partial(self._read_from, chunk), chunk.start)

    def _read_from(self, chunk: Chunk, start: int) -> Iterator[Sample]:
        chunk = replace(chunk, start=start, size=chunk.start + chunk.size - start)
        (path,) = chunk.files
        for row, cell, label, extra in self._rows(path, chunk):
            place, problem = f"{path}[{row}]", ""
            if cell.is_missing:
                cell, problem = self._picture(path, cell)
            name = place if self.by_place else shown(cell.path or place)
            yield Sample(cell.image, label, name, problem, shown(place), extra)

    def _rows(self, path: str, chunk: Chunk) -> Iterator[Row]:
        where = f"{self.uri}/{path}"
        with self._open(path) as handle:
            with readable(where):
                file, footer = open_file(handle, where, path, self.columns)
            if footer is None:
                raise has_changed(where)
            others = self._others(footer)
            yield from read_rows(file, footer, self.columns, others, chunk, where)

    def _others(self, footer: Footer) -> list[str]:
        """The columns of a file that travel along."""
        return [name for name, _ in footer.others if name in self._extra]

    def _picture(self, path: str, cell: Cell) -> tuple[Cell, str]:
        """The image that a cell without bytes names, if it lies below the source's folder, or why not."""
        if cell.path is None:
            return cell, "no bytes in the column"
        problem = "no bytes in the column, and the path there is no file below the source's folder"
        if not self.has_pictures:
            return cell, problem
        name = cell.path.removeprefix(f"{self.uri}/")
        storage = open_storage(self.uri, self.s3)
        for folder in dict.fromkeys((posixpath.dirname(path), "")):
            inner = posixpath.normpath(posixpath.join(folder, name))
            if not self._holds(inner):
                continue
            where = shown(f"{self.uri}/{inner}")
            return Cell(patiently(partial(storage.read_bytes, inner), where), cell.path), ""
        return cell, problem

    def _holds(self, inner: str) -> bool:
        """Whether the path is that of a file that counts as content: below the folder, not hidden."""
        is_hidden = any(part.startswith(".") for part in inner.split("/"))  # ".." is, too
        if is_hidden or inner.startswith("/") or "\0" in inner or is_side_file(inner):
            return False
        if urlsplit(self.uri).scheme == "s3":
            return open_storage(self.uri, self.s3).size(inner) is not None
        root = os.path.realpath(self.uri)
        real = os.path.realpath(os.path.join(root, inner))
        return os.path.isfile(real) and os.path.commonpath([root, real]) == root

    def extra_columns(self) -> dict[str, pa.DataType]:
        """All plain columns of the files beside image and label."""
        return self._extra

    def class_names(self) -> list[str] | None:
        """The classes that the files' metadata name, None where a file has no names."""
        return self._class_names

    def origin(self, split: str) -> str:
        """The files of the split."""
        paths = [shown(path) for path in self._footers if self._splits[path] == split]
        return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more"

    def remarks(self) -> list[str]:
        """Splits without labels, differing names, files that were left out."""
        return self._remarks
