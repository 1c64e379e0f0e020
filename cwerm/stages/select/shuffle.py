"""Features by class: what workers read, sort, write in pieces, and look at."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cwerm.algorithms.inputs import check_finite
from cwerm.stages import common
from cwerm.stages.labels_in_use import LabelReader
from cwerm.stages.select.choosing import Choice, Found, look
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, File
from cwerm.store.writing import Writer


class Bucket(NamedTuple):
    """Neighbouring classes that one worker looks at, and the columns that it holds at a time."""

    number: int
    classes: range
    blocks: list[slice]


Pieces = list[list[File]]  # of one bucket: of each group that has rows of it, the blocks of columns


class Sorted(NamedTuple):
    """Rows by class, and within a class by id."""

    labels: np.ndarray
    ids: np.ndarray
    vectors: np.ndarray

    def of(self, classes: range) -> Sorted:
        """Those of neighbouring classes."""
        first, last = np.searchsorted(self.labels, [classes.start, classes.stop])
        return Sorted(*(column[first:last] for column in self))


class Rows:
    """The features that may be chosen, as they lie in the store."""

    def __init__(
        self, store: ArtifactStore, features: Artifact, labels: Artifact, left_out: np.ndarray
    ) -> None:
        self.store, self.features, self.left_out = store, features, left_out
        self.reader = LabelReader(store, labels)
        self.ends = np.cumsum([0, *(file.rows for file in features.tables["features"])])

    def read(self, parts: range) -> Sorted:
        """Those of neighbouring parts."""
        start, stop = self.ends[parts.start], self.ends[parts.stop]
        found: np.ndarray | None = None
        for part in parts:
            table = self.store.read_part(self.features, "features", part, ["feature"])
            vectors = common.column(table, "feature")
            check_finite(vectors)
            if found is None:
                found = np.empty((stop - start, vectors.shape[1]), vectors.dtype)
            found[self.ends[part] - start : self.ends[part + 1] - start] = vectors
        assert found is not None, "there are parts"
        rows = self.reader.rows(int(start), int(stop))
        kept = np.flatnonzero(rows.usable(self.left_out))
        order = kept[np.argsort(rows.labels[kept], kind="stable")]
        return Sorted(rows.labels[order], start + order, found[order])


class Whole:
    """Reads the parts, and looks at each class."""

    def __init__(self, choice: Choice | None, rows: Rows) -> None:
        self.choice, self.rows = choice, rows

    def __call__(self, parts: range) -> Found:
        return _look_at_each(self.choice, [self.rows.read(parts)])


class Cut:
    """Sorts a group of parts by class, and writes a piece for each bucket."""

    def __init__(self, rows: Rows, writer: Writer, buckets: list[Bucket]) -> None:
        self.rows, self.writer, self.buckets = rows, writer, buckets

    def __call__(self, group: tuple[int, range]) -> list[list[File]]:
        number, parts = group
        rows = self.rows.read(parts)
        return [self._write(number, bucket, rows.of(bucket.classes)) for bucket in self.buckets]

    def _write(self, group: int, bucket: Bucket, rows: Sorted) -> list[File]:
        if not len(rows.ids):
            return []
        files = []
        for block, columns in enumerate(bucket.blocks):
            vectors = np.ascontiguousarray(rows.vectors[:, columns])
            values: Any = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors)
            fields = schema.table_schema("sorted_features", value_type=values.type)
            table = pa.table([rows.ids, rows.labels, values], schema=fields)
            name = f"bucket-{bucket.number:05d}-{block:05d}"
            files.append(self.writer.write_unpublished("sorted_features", group, table, name=name))
        return files


class Shuffled:
    """Reads the pieces of a bucket, and looks at each class."""

    def __init__(self, choice: Choice | None, writer: Writer) -> None:
        self.choice, self.writer = choice, writer

    def __call__(self, work: tuple[Bucket, Pieces]) -> Found:
        bucket, pieces = work
        if len(bucket.blocks) == 1:
            return _look_at_each(self.choice, [self._read(file) for (file,) in pieces])
        ids = np.concatenate([self._read(files[0]).ids for files in pieces])
        (label,) = (label for label in bucket.classes if len(pieces))
        return look(
            self.choice,
            label,
            ids,
            lambda: (self._column(pieces, block) for block in range(len(bucket.blocks))),
            lambda: (np.hstack([self._read(file).vectors for file in files]) for files in pieces),
        )

    def _column(self, pieces: Pieces, block: int) -> np.ndarray:
        return np.concatenate([self._read(files[block]).vectors for files in pieces])

    def _read(self, file: File) -> Sorted:
        table = self.writer.read_unpublished(file)
        return Sorted(*(common.column(table, name) for name in ("label", "id", "feature")))


class Forget:
    """Removes the pieces of a bucket."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    def __call__(self, work: tuple[Bucket, Pieces]) -> None:
        for files in work[1]:
            for file in files:
                self.writer.delete_unpublished(file)


def _look_at_each(choice: Choice | None, pieces: list[Sorted]) -> Found:
    """What is chosen of every class that occurs; its ids ascend from piece to piece."""
    occurring = np.unique(np.concatenate([piece.labels for piece in pieces]))
    found: list[Found] = [(np.empty(0, np.int64), np.empty(0, np.float32))]
    for label in occurring.tolist():
        own = [piece.of(range(label, label + 1)) for piece in pieces]
        ids = np.concatenate([piece.ids for piece in own])
        vectors = functools.partial(iter, [np.concatenate([piece.vectors for piece in own])])
        found.append(look(choice, label, ids, vectors, vectors))
    ids, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    return ids, distances
