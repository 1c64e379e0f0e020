"""Images that an earlier run has read from the same place: they are not read again, nor decoded.

The artifact of ingest says of each of its images what told its content from any other before it was read,
such as the ETag of an object, and what was learned of it. The image itself lies in the artifact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cwerm.stages import common, earlier
from cwerm.stages.earlier import MOST_ROWS, EarlierRows
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.outside import Outside
from cwerm.store.artifacts import Artifact, ArtifactStore, CorruptArtifactError

KEPT = 4  # artifacts remembered, of each address
CONTENTS = "contents"  # the table
NOTHING = bytes(16)  # where nothing tells an image without reading it
_LEARNED = ("height", "width", "bytes")


@dataclass(frozen=True)
class Recorded:
    """What earlier runs learned of the images of one chunk."""

    rows: np.ndarray
    """Among `KnownImages.sources`, int64 [rows of the chunk], -1 for an image that is not known."""
    pixels: np.ndarray
    """Digests of the images, bytes [rows, 16]."""
    height: np.ndarray
    width: np.ndarray
    bytes: np.ndarray

    @property
    def known(self) -> tuple[bool, ...]:
        """Which images need not be read."""
        return tuple((self.rows >= 0).tolist())


@dataclass(frozen=True)
class KnownImages:
    """The images of earlier runs, and which of them are those of this run."""

    sources: EarlierRows
    chunks: list[Recorded]

    def images(self, store: ArtifactStore, rows: np.ndarray) -> list[bytes]:
        """The images of the known ``rows`` [b], b"" where one is below 0."""
        found = [b""] * len(rows)
        for of_part in self.sources.locate(rows):
            table = store.read_part(of_part.artifact, of_part.table, of_part.part, ["image"])
            images = common.images_of(table)
            for place, row in zip(of_part.places.tolist(), of_part.rows.tolist(), strict=True):
                found[place] = bytes(images[row])
        return found


def contents_of(outside: Outside, items: Sequence[WorkItem]) -> list[np.ndarray]:
    """For each chunk what tells its images' content from any other, bytes [rows, 16]."""
    found = []
    for _, role, chunk in items:
        told = outside.sources[role].contents(chunk)
        digests = [_digest(text) if text else NOTHING for text in told or [""] * chunk.size]
        found.append(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))
    return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:16]


def find_known(
    store: ArtifactStore, address: str, contents: Sequence[np.ndarray]
) -> KnownImages | None:
    """What is known of images with these contents; None where nothing is."""
    wanted = [np.ascontiguousarray(of_chunk).view(np.uint64) for of_chunk in contents]
    if not sum(map(len, wanted)) or not any(of_chunk.any() for of_chunk in wanted):
        return None
    sources, tables = EarlierRows(), []
    for entry in earlier.remembered(store.storage, _path(address), ["ingest"]):
        found = _read(store, entry["ingest"])
        if found and len(sources) + len(found[1]) <= MOST_ROWS:
            artifact, table = found
            for name in images_tables(artifact):
                sources.add(artifact, name)
            tables.append(table)
    if not tables:
        return None
    table = pa.concat_tables(tables)
    told = earlier.as_numbers(table.column("content"))
    pixels = earlier.as_numbers(table.column("digest")).view(np.uint8).reshape(-1, 16)
    learned = [common.column(table, name) for name in _LEARNED]
    chunks = []
    for of_chunk in wanted:
        rows = earlier.match(told, of_chunk)
        rows[~of_chunk.any(axis=1)] = -1  # nothing tells them
        chunks.append(Recorded(rows, pixels[rows], *(values[rows] for values in learned)))
    return KnownImages(sources, chunks)


def images_tables(artifact: Artifact) -> list[str]:
    """The tables of images, in the order in which the rows of ``contents`` are theirs."""
    return sorted(name for name in artifact.tables if name.endswith("images"))


def _read(store: ArtifactStore, key: str) -> tuple[Artifact, pa.Table] | None:
    artifact = earlier.find(store, "ingest", key)
    if artifact is None or not artifact.tables.get(CONTENTS):
        return None
    try:
        table = store.read(artifact, CONTENTS)
    except CorruptArtifactError:
        return None
    is_whole = len(table) == sum(map(artifact.rows, images_tables(artifact)))
    return (artifact, table) if is_whole else None


def remember(store: ArtifactStore, address: str, made: Artifact) -> None:
    """Let later runs find these images."""
    if CONTENTS not in made.tables:
        return
    entry = {"ingest": made.key}
    others = earlier.remembered(store.storage, _path(address), ["ingest"])
    kept = [entry, *(e for e in others if e != entry)][:KEPT]
    earlier.remember(store.storage, _path(address), kept)


def _path(address: str) -> str:
    return f"known-images/{_digest(address).hex()}.json"
