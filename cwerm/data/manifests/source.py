"""Images that a table names by their paths, with their labels."""

from __future__ import annotations

import functools
import hashlib
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pyarrow as pa

from cwerm.data.extra import told_left_out
from cwerm.data.files.digests import THREADS
from cwerm.data.files.file_source import FileSource, held_out_split
from cwerm.data.files.listing import FoundFile, Listing, address, list_files
from cwerm.data.files.reading import patiently
from cwerm.data.manifests.rows import Row, read_rows
from cwerm.data.source import Chunk, Sample, mixed, pieces
from cwerm.errors import UserError, blame, shown
from cwerm.job.surroundings import S3
from cwerm.store.storage import open_storage


class Manifest(FileSource):
    """Images below one folder: that of the manifest, or the job's ``data.root``.

    Paths are relative to it, or whole ones within it; with a column split they are training, test or
    validation images, without one training images. Rows that are there twice count once.
    """

    def __init__(
        self,
        listing: Listing,
        image: str,
        label: str,
        root: str | None = None,
        s3: S3 | None = None,
    ) -> None:
        (table,) = listing.files
        self.name = f"{listing.uri}/{shown(table.path)}"
        where = f"data.source: '{self.name}'"
        storage = open_storage(listing.uri, listing.s3)
        self._data = patiently(functools.partial(storage.read_bytes, table.path), self.name)
        with blame(where):
            rows, self.columns, self._extra, self._left_out = read_rows(
                self._data, table.path, image, label
            )
        self.root = address(root) if root else listing.uri
        self._sizes = self._found([self._below(row.path) for row in rows], s3)
        files = tuple(FoundFile(path, size, 0) for path, size in sorted(self._sizes.items()))
        super().__init__(Listing(self.root, files, (), s3), files)
        renamed = held_out_split({row.split for row in rows})
        self._splits: dict[str, list[Row]] = {}
        self._numbers: dict[str, list[int]] = {}  # of each split's rows, in the table
        for number in mixed(row.path for row in rows):
            row = rows[number]
            self._splits.setdefault(renamed[row.split], []).append(row)
            self._numbers.setdefault(renamed[row.split], []).append(number)
        if "train" not in self._splits:
            raise UserError(f"{where} has no training images; name the split of some train")

    def __getstate__(self) -> dict[str, object]:
        left: dict[str, object] = {
            "_splits": {},
            "_numbers": {},
            "_sizes": {},
            "_data": b"",
            "_extra": None,
        }
        return {**super().__getstate__(), **left}

    def fingerprint(self) -> str:
        """A hash of the table and of every file's content, of objects in a bucket their ETag."""
        return hashlib.sha256(self._data + super().fingerprint().encode()).hexdigest()

    def _below(self, path: str) -> str:
        """The path below the root.

        Raises:
            UserError: it lies elsewhere.
        """
        below = below_root(path, self.root)
        if below is None:
            whole = path if "://" in path else os.path.normpath(os.path.join(self.root, path))
            raise UserError(
                f"data.source: '{self.name}' names '{shown(path)}', which lies outside of '{self.root}'; set "
                f"data.root to the folder that holds all images, such as {shown(posixpath.dirname(whole))}"
            )
        return below

    def _found(self, paths: Sequence[str], s3: S3 | None) -> dict[str, int]:
        """Bytes of each file, by its path below the root.

        Raises:
            UserError: one is not there.
        """
        sizes: dict[str, int | None]
        if urlsplit(self.root).scheme == "s3":
            there = {file.path: file.size for file in list_files(self.root, s3).files}
            sizes = {path: there.get(path) for path in paths}
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                sizes = dict(zip(paths, pool.map(self._local_size, paths), strict=True))
        missing = [path for path, size in sizes.items() if size is None]
        if missing:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            raise UserError(
                f"data.source: '{self.name}' names '{shown(missing[0])}'{more}, and there is no such file "
                f"below '{self.root}'; correct the paths, or set data.root to the folder that they start from"
            )
        return {path: size for path, size in sizes.items() if size is not None}

    def _local_size(self, path: str) -> int | None:
        try:
            found = os.stat(f"{self.root}/{path}")
        except (OSError, ValueError):  # ValueError: a name with a null byte
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of up to ``rows`` images and `PART_BYTES`, of all classes: see `mixed`."""
        named, numbers = self._splits.get(split, []), self._numbers.get(split, [])
        chunks = []
        for piece in pieces([self._sizes[self._below(row.path)] for row in named], rows):
            part = named[piece]
            paths, labels = tuple(row.path for row in part), tuple(row.label for row in part)
            extra = self._extra.take(numbers[piece]) if self._extra.num_columns else None
            chunk = Chunk(split, piece.start, len(part), paths, labels=labels, extra=extra)
            chunks.append(chunk)
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The content of the chunk's files.

        Raises:
            UserError: a file can't be read, or the bucket that it lies in does not answer.
        """
        storage = open_storage(self.root, self.s3)
        extra = [{}] * len(chunk.files) if chunk.extra is None else chunk.extra.to_pylist()
        known = chunk.known or (False,) * len(chunk.files)
        rows = zip(chunk.files, chunk.labels, extra, known, strict=True)
        for path, label, values, is_known in rows:
            image = b""
            if not is_known:
                below = self._below(path)
                read = functools.partial(storage.read_bytes, below)
                image = patiently(read, f"{self.root}/{shown(below)}")
            name = shown(label) if isinstance(label, str) else label
            yield Sample(image, name, shown(path), extra=values)

    def contents(self, chunk: Chunk) -> list[str]:
        """Of each row's file."""
        return [self.content_of(self._below(path)) for path in chunk.files]

    def extra_columns(self) -> dict[str, pa.DataType]:
        """The other columns of the table, as far as they are plain."""
        return {field.name: field.type for field in self._extra.schema}

    def class_names(self) -> list[str] | None:
        """None: they are the labels that occur."""
        return None

    def origin(self, split: str) -> str:
        """The table, and the column that tells the split."""
        name = self.name.rpartition("/")[2]
        return f"{name}, {self.columns.split} {split}" if self.columns.split else name

    def remarks(self) -> list[str]:
        """Which columns were read, and from where the paths start."""
        line = f"columns {self.columns.path} and {self.columns.label}; paths below '{self.root}'"
        counts = Counter(self._below(row.path) for rows in self._splits.values() for row in rows)
        several = sum(count > 1 for count in counts.values())
        lines = [line] + ([f"{several:,} file(s) are named in two ways"] if several else [])
        return [*lines, *told_left_out(self._left_out)]


def below_root(path: str, root: str) -> str | None:
    """A path or URI as a path below the root; None where it lies elsewhere, or is the root itself."""
    root_scheme, _, top = root.rpartition("://")
    scheme, sign, whole = path.rpartition("://")
    if scheme.lower() == "file":
        scheme, whole = "", address(path)
    elif not sign:
        scheme, whole = root_scheme, path if os.path.isabs(path) else f"{top}/{path}"
    if scheme.lower() != root_scheme or (os.path.isabs(path) and root_scheme):
        return None
    below = posixpath.relpath(posixpath.normpath(f"/{whole}"), posixpath.normpath(f"/{top}"))
    return None if below in (".", "..") or below.startswith("../") else below
