"""A data set that Hugging Face's library has written: Arrow shards by split, read without that library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from cwerm.data.files.file_source import split_in_name
from cwerm.data.files.listing import Listing
from cwerm.data.files.reading import patiently
from cwerm.data.huggingface.columns import choose
from cwerm.data.huggingface.found import Shards
from cwerm.data.huggingface.shards import Batch, index, read_header, read_rows
from cwerm.data.parquet.files import Parquet
from cwerm.data.parquet.footers import Columns, Footer, readable
from cwerm.data.parquet.rows import Row
from cwerm.data.source import Chunk
from cwerm.errors import UserError, shown
from cwerm.store.storage import filesystem

SHARD = "Arrow shard"


class SavedSet(Parquet):
    """The shards of a data set; splits are the folders of a `DatasetDict`, a `Dataset` is all ``train``.

    What they hold is read as the same columns of Parquet are. Where the job names no columns, the only
    one that holds images is read, and the only `ClassLabel`, or else the only one of text or integers.
    """

    def __init__(self, listing: Listing, image: str, label: str, shards: Shards) -> None:
        """``shards`` has for each the name of its split, "" for none.

        Raises:
            UserError: a shard is damaged, or has no columns that can be images and labels.
        """
        self.uri, self.s3 = listing.uri, listing.s3
        self._batches: dict[str, tuple[Batch, ...]] = {}
        self._paths: dict[str, pa.ChunkedArray] = {}
        self._split_names, unknown = _understood(shards)
        if not self._split_names:
            raise UserError(
                f"data.source: '{self.uri}' has splits {', '.join(unknown)}, of which none is called train, "
                "test or validation; rename one, or give the folder of one"
            )
        asked = Columns(image, label)
        columns = self._chosen(next(iter(self._split_names)), asked)
        files = tuple(file for file in listing.files if file.path in self._split_names)
        super().__init__(listing, columns.image, columns.label, files)
        if self._share_paths():
            self.by_place = True
            self._remarks.append(
                f"paths in column {shown(columns.image)} name several images each: rows name them instead"
            )
        if columns != asked:
            self._remarks.append(f"columns {shown(columns.image)} and {shown(columns.label)}")
        if unknown:
            self._remarks.append(
                f"splits that are not used: {shown(', '.join(unknown))}; only train, test and validation are"
            )

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_split_names": {}}

    def _share_paths(self) -> bool:
        """Whether two images have the same path; the paths are forgotten."""
        chunks = [chunk for paths in self._paths.values() for chunk in paths.chunks]
        paths, self._paths = pa.chunked_array(chunks, pa.string()), {}
        return len(pc.unique(paths)) < len(paths)

    def _chosen(self, path: str, asked: Columns) -> Columns:
        where = shown(f"{self.uri}/{path}")
        with self._open(path) as handle, readable(where, kind=SHARD):
            header = read_header(handle, where)
        return choose(header.schema, header.extensions, asked, where)

    def _mapped(self, path: str) -> pa.NativeFile:
        """A shard to be looked through: a local one is not read but for what is looked at."""
        if urlsplit(self.uri).scheme == "s3":
            return self._open(path)
        _, root = filesystem(self.uri)
        where = shown(f"{self.uri}/{path}")
        return patiently(lambda: pa.memory_map(f"{root}/{path}"), where)

    def _footer(self, path: str) -> Footer | None:
        where = shown(f"{self.uri}/{path}")
        with self._mapped(path) as handle, readable(where, kind=SHARD):
            header = read_header(handle, where)
            footer = header.footer(self.columns, where)
            found = [*index(handle, header, self.columns)]
        batches = tuple(batch for batch, _ in found)
        self._batches[path] = batches
        self._paths[path] = pa.chunked_array([paths for _, paths in found], pa.string())
        return replace(
            footer,
            group_rows=tuple(batch.rows for batch in batches),
            group_bytes=tuple(batch.size for batch in batches),
            labelled=any(batch.labelled for batch in batches),
        )

    def _named_split(self, path: str) -> str | None:
        return self._split_names[path]

    def _rows(self, path: str, chunk: Chunk) -> Iterator[Row]:
        where = shown(f"{self.uri}/{path}")
        with self._open(path) as handle, readable(where, f"after row {chunk.start}"):
            header = read_header(handle, where)
            footer = header.footer(self.columns, where)
            others, batches = self._others(footer), self._batches[path]
            read = partial(read_rows, handle, header, footer, batches)
            yield from read(self.columns, others, chunk, where)


def _understood(shards: Shards) -> tuple[dict[str, str | None], list[str]]:
    """The split of each shard that has one that is known, and the names of the others."""
    known: dict[str, str | None] = {}
    unknown: dict[str, None] = {}
    alone = len({*shards.values()}) == 1
    for path, name in shards.items():
        found = split_in_name(name)
        if found or alone:
            known[path] = found.split if found else None
        else:
            unknown[name] = None
    return known, [*unknown]
