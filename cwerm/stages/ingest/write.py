"""The second pass of ingest: the parts of images, and of what else the source tells of them."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from cwerm.data.source import Sample, Source
from cwerm.stages.ingest.assign import ChunkRows
from cwerm.stages.ingest.extra import extra_table
from cwerm.stages.ingest.images import images_table
from cwerm.stages.ingest.known import KnownImages
from cwerm.stages.ingest.scan import check_same
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.outside import naming
from cwerm.store.artifacts import ArtifactStore, File
from cwerm.store.beside import Later, WriteBehind
from cwerm.store.schema import EXTRA
from cwerm.store.writing import Writer

Written = list[tuple[str, int, File]]
Files = dict[str, File | Future[File] | None]
"""Of one part by table: made by an earlier attempt, being written, or not there yet."""


@dataclass(frozen=True)
class ChunkWork:
    """One chunk, the parts that it becomes, and which of its rows earlier runs have read."""

    item: WorkItem
    parts: list[ChunkRows]
    known: np.ndarray | None
    """Rows of earlier images, int64 [rows of the chunk]."""


class ChunkWriter:
    """Writes the parts of a chunk; what earlier runs have read comes from the store."""

    def __init__(
        self,
        sources: dict[str, Source],
        store: ArtifactStore,
        writer: Writer,
        extra: dict[str, pa.DataType],
        known: KnownImages | None,
    ) -> None:
        self.sources, self.store, self.writer, self.extra = sources, store, writer, extra
        self.known = known
        self.behind = WriteBehind()

    def _tables(self, part: ChunkRows) -> dict[str, str]:
        """The tables that a part is written to, each with that whose ids it has."""
        own = {name: name for name in part.ids}
        return own | ({EXTRA: "images"} if self.extra and "images" in own else {})

    def __call__(self, work: ChunkWork) -> Later[Written]:
        _, role, chunk = work.item
        finished: list[Files] = [
            {
                name: self.writer.finished_part(name, part.index, part.contents(of))
                for name, of in self._tables(part).items()
            }
            for part in work.parts
        ]
        samples: Iterator[Sample] = iter(())
        if not all(file for files in finished for file in files.values()):
            if work.known is not None:
                chunk = dataclasses.replace(chunk, known=tuple((work.known >= 0).tolist()))
            samples = self.sources[role].read(chunk)
        start = 0
        with naming(role):
            for part, files in zip(work.parts, finished, strict=True):
                of_part = islice(samples, len(part.labels))
                end = start + len(part.labels)
                if all(files.values()):
                    deque(of_part, maxlen=0)  # one at a time, and forgotten
                else:
                    rows = None if work.known is None else work.known[start:end]
                    self._write(self._filled(list(of_part), rows), part, files)
                start = end
        return Later(lambda: _written(work.parts, finished))

    def _filled(self, samples: list[Sample], rows: np.ndarray | None) -> list[Sample]:
        """The samples, with the images that lie in the store."""
        if rows is None or self.known is None:
            return samples
        images = self.known.images(self.store, rows)
        return [
            dataclasses.replace(sample, image=image) if image else sample
            for sample, image in zip(samples, images, strict=True)
        ]

    def _write(self, samples: list[Sample], part: ChunkRows, files: Files) -> None:
        check_same(samples, part.digests)
        for name, of in self._tables(part).items():
            table = (
                extra_table(samples, part.ids[of], self.extra)
                if name == EXTRA
                else images_table(samples, part.ids[of], part.full_scale)
            )
            asked = name, part.index, table, part.contents(of)
            files[name] = self.behind.write(self.writer.write_part, *asked)


def _written(parts: list[ChunkRows], finished: list[Files]) -> Written:
    """What there is of each part, once it is written."""
    return [
        (name, part.index, file.result() if isinstance(file, Future) else file)
        for part, files in zip(parts, finished, strict=True)
        for name, file in files.items()
        if file
    ]
