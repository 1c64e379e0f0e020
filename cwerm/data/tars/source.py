"""Tar shards, local or in a bucket: one sample after the other, streamed."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

from cwerm.data.files.file_source import FileSource, same_kind_of_names
from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import patiently, patiently_each
from cwerm.data.names import suffix
from cwerm.data.parquet.names import split_of
from cwerm.data.source import Chunk, Sample, pieces
from cwerm.data.tars.samples import Found, samples
from cwerm.errors import UserError, blame, shown
from cwerm.store.storage import filesystem

BUFFER = 2**18  # bytes that are read ahead: what is smaller is passed over in one read
THREADS = 8


class Tars(FileSource):
    """Shards as WebDataset has them; their names may tell splits, as ``train-0001.tar`` does.

    A shard is read as a whole by one worker, so that there should be as many as workers, or more.
    """

    def __init__(self, listing: Listing, label: str, files: tuple[FoundFile, ...]) -> None:
        super().__init__(listing, files)
        self.column = label
        for file in files:
            if file.problem:
                raise UserError(f"data.source: '{self._where(file.path)}': {file.problem}")
        named = {file.path: split_of(file.path, label) for file in files}
        self._splits = same_kind_of_names(named, self.uri)
        with ThreadPoolExecutor(THREADS) as pool:
            self._sizes = dict(zip(named, pool.map(self._index, named), strict=True))
        if "train" not in self._splits.values() or not any(self._sizes.values()):
            raise UserError(f"data.source: '{self.uri}' has no training samples; check the path")

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_splits": {}, "_sizes": {}}

    def _where(self, path: str) -> str:
        return f"{self.uri}/{shown(path)}"

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        system, root = filesystem(self.uri, self.s3)
        opened = functools.partial(system.open_input_file, f"{root}/{path}")
        with patiently(opened, self._where(path)) as handle:
            raw: Any = handle
            yield io.BufferedReader(raw, BUFFER)

    def _index(self, path: str) -> list[int]:
        """Bytes of the image of each sample."""
        with self._open(path) as stream, blame(f"data.source: '{self._where(path)}'"):
            return [found.size for found in samples(stream, self.column, images=False)]

    def fingerprint(self) -> str:
        """A hash of the shards and of the name that labels have."""
        return f"{super().fingerprint()}:{self.column}"

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """One for each shard, of as many parts as ``rows`` and `PART_BYTES` make of it."""
        chunks = []
        for path, sizes in self._sizes.items():
            if self._splits[path] == split and sizes:
                parts = tuple(piece.stop - piece.start for piece in pieces(sizes, rows))
                several = parts if len(parts) > 1 else ()
                chunks.append(Chunk(split, 0, len(sizes), (path,), parts=several))
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The samples of the chunk's shard."""
        (path,) = chunk.files

        def read_from(start: int) -> Iterator[Sample]:
            with self._open(path) as stream, blame(f"data.source: '{self._where(path)}'"):
                for found in islice(samples(stream, self.column, images=True), start, None):
                    yield self._sample(path, found)

        return patiently_each(read_from, 0)

    def _sample(self, path: str, found: Found) -> Sample:
        return Sample(found.image, found.label, f"{shown(path)}/{found.name}", found.problem)

    def class_names(self) -> list[str] | None:
        """None: they are the labels that occur."""
        return None

    def origin(self, split: str) -> str:
        """The shards of the split, the first and the last."""
        paths = [path for path, its in self._splits.items() if its == split]
        first, last = shown(paths[0]), shown(paths[-1])
        return first if len(paths) == 1 else f"{len(paths):,} shards, {first} to {last}"


def tar_files(listing: Listing) -> tuple[FoundFile, ...]:
    """The tar shards of a listing."""
    return tuple(file for file in listing.files if suffix(file.path) == ".tar")
