"""What earlier artifacts hold that a new one needs again: which they are, and where a row lies in them.

A small object in the store names the last artifacts of a kind. It is a hint: where it, or what it names, is
gone or damaged, the work is done again. Only a part that turns out to be damaged as it is copied is an error,
as for every stage that reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cwerm.store.artifacts import Artifact, ArtifactStore, CorruptArtifactError
from cwerm.store.storage import Storage, parse_mapping

MOST_ROWS = 20_000_000  # that are compared in the driver, at some 50 bytes each

Entry = dict[str, str]


def remembered(storage: Storage, path: str, names: Sequence[str]) -> list[Entry]:
    """The artifacts that an object names, the last first, each by stages and keys under these names."""
    try:
        entries = parse_mapping(storage.read_bytes(path))["made"]
        found = [{name: str(entry[name]) for name in names} for entry in entries]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    # keys and stages are parts of paths
    return [entry for entry in found if all(v.replace("_", "").isalnum() for v in entry.values())]


def remember(storage: Storage, path: str, entries: Sequence[Entry]) -> None:
    """Let later runs find these artifacts."""
    storage.write_bytes(path, json.dumps({"made": entries}, indent=1).encode())


def find(store: ArtifactStore, stage: str, key: str) -> Artifact | None:
    """The artifact that an entry names, None where it is gone or damaged."""
    try:
        return store.find(stage, key)
    except CorruptArtifactError:
        return None


@dataclass(frozen=True)
class Located:
    """Rows of one part of an earlier table."""

    artifact: Artifact
    table: str
    part: int
    rows: np.ndarray
    """Within the part, int64 [k]."""
    places: np.ndarray
    """Which of the rows asked for they are, int64 [k]."""


class EarlierRows:
    """The rows of tables of earlier artifacts, numbered one table after the other."""

    def __init__(self) -> None:
        self._tables: list[tuple[Artifact, str, np.ndarray]] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, artifact: Artifact, table: str) -> None:
        """Number the rows of one more table."""
        ends = self._rows + np.cumsum([part.rows for part in artifact.tables[table]])
        self._tables.append((artifact, table, ends))
        self._rows += artifact.rows(table)

    @property
    def first(self) -> tuple[Artifact, str]:
        """The table that was added first."""
        artifact, table, _ = self._tables[0]
        return artifact, table

    def locate(self, rows: np.ndarray) -> Iterator[Located]:
        """Where ``rows`` [b] lie, part by part; those below 0 lie nowhere."""
        start = 0
        for artifact, table, ends in self._tables:
            part_of = np.searchsorted(ends, rows, side="right")
            part_of[(rows < start) | (rows >= (ends[-1] if len(ends) else start))] = -1
            for part in np.unique(part_of[part_of >= 0]).tolist():
                first = ends[part] - artifact.tables[table][part].rows
                places = np.flatnonzero(part_of == part)
                yield Located(artifact, table, part, rows[places] - first, places)
            start += artifact.rows(table)


def as_numbers(digests: pa.ChunkedArray) -> np.ndarray:
    """Digests of 16 bytes as two whole numbers each, uint64 [n, 2]."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint64)[
            2 * chunk.offset : 2 * (chunk.offset + len(chunk))
        ]
        for chunk in digests.chunks
        if len(chunk)
    ]
    return np.concatenate([*chunks, np.empty(0, np.uint64)]).reshape(-1, 2)


class Digests:
    """Known digests, uint64 [n, 2], in which others are looked for."""

    def __init__(self, known: np.ndarray) -> None:
        self.known = known
        self._order = np.argsort(known[:, 0], kind="stable")
        self._first = known[self._order, 0]

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """Of each wanted digest, uint64 [m, 2], the first row of the known ones that has it, or -1."""
        at = np.minimum(np.searchsorted(self._first, wanted[:, 0]), max(0, len(self._first) - 1))
        found = np.full(len(wanted), -1, np.int64)
        if len(self._first):
            candidate = self._order[at]
            same = (self.known[candidate] == wanted).all(axis=1)
            found[same] = candidate[same]
        return found
