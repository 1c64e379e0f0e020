"""Images that an earlier run has read from the same place: they are not read again, nor decoded.

The artifact of ingest says of each of its images what told its content from any other before it was read,
such as the ETag of an object, and what was learned of it. The image itself lies in the artifact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.stages import common, earlier
from cwerm.stages.earlier import MOST_ROWS, Digests, EarlierRows
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


# a chunk, what tells its images from others, bytes [rows, 16] if anything does, and what is known of them
ScanWork = tuple[WorkItem, np.ndarray | None, Recorded | None]


@dataclass(frozen=True)
class KnownImages:
    """The images of earlier runs."""

    sources: EarlierRows

    def images(self, store: ArtifactStore, rows: np.ndarray) -> list[bytes]:
        """The images of the known ``rows`` [b], b"" where one is below 0."""
        found = [b""] * len(rows)
        for of_part in self.sources.locate(rows):
            table = store.read_part(of_part.artifact, of_part.table, of_part.part, ["image"])
            images = common.images_of(table)
            for place, row in zip(of_part.places.tolist(), of_part.rows.tolist(), strict=True):
                found[place] = bytes(images[row])
        return found


class RecordedImages:
    """What was recorded of the images of earlier runs, looked up by their content."""

    def __init__(self, images: KnownImages, table: pa.Table) -> None:
        self.images = images
        self._told = Digests(earlier.as_numbers(table.column("content")))
        self._pixels = earlier.as_numbers(table.column("digest")).view(np.uint8).reshape(-1, 16)
        self._learned = [common.column(table, name) for name in _LEARNED]

    def of(self, content: np.ndarray | None, size: int) -> Recorded:
        """What is recorded of a chunk of so many images, by their content [size, 16]."""
        rows = np.full(size, -1, np.int64)
        if content is not None:
            told = np.ascontiguousarray(content).view(np.uint64)
            rows = self._told.rows_of(told)
            rows[~told.any(axis=1)] = -1  # nothing tells them
        return Recorded(rows, self._pixels[rows], *(values[rows] for values in self._learned))


class ToScan(Sequence[ScanWork]):
    """The chunks with what is known of each, which is looked up when a worker asks for it."""

    def __init__(
        self, outside: Outside, items: Sequence[WorkItem], recorded: RecordedImages | None
    ) -> None:
        self.outside, self.items, self.recorded = outside, items, recorded

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, chunk: Any) -> Any:
        item = self.items[chunk]
        content = content_of(self.outside, item)
        found = self.recorded.of(content, item[2].size) if self.recorded else None
        return item, content, found


def content_of(outside: Outside, item: WorkItem) -> np.ndarray | None:
    """What tells the content of a chunk's images, bytes [rows, 16], zeros where nothing does.

    None where the source knows it of no image.
    """
    _, role, chunk = item
    told = outside.sources[role].contents(chunk)
    if told is None:
        return None
    digests = [_digest(text) if text else NOTHING for text in told]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:16]


def find_known(
    store: ArtifactStore, outside: Outside, items: Sequence[WorkItem]
) -> RecordedImages | None:
    """What is known of images in the place of these; None where nothing is, or nothing tells them."""
    told = (outside.sources[role].contents(chunk) for _, role, chunk in items)
    if not any(any(of_chunk or ()) for of_chunk in told):
        return None
    sources, tables = EarlierRows(), []
    address = outside.addresses["source"]
    for entry in earlier.remembered(store.storage, _path(address), ["ingest"]):
        found = _read(store, entry["ingest"], MOST_ROWS - len(sources))
        if found:
            artifact, table = found
            for name in images_tables(artifact):
                sources.add(artifact, name)
            tables.append(table)
    return RecordedImages(KnownImages(sources), pa.concat_tables(tables)) if tables else None


def images_tables(artifact: Artifact) -> list[str]:
    """The tables of images, in the order in which the rows of ``contents`` are theirs."""
    return sorted(name for name in artifact.tables if name.endswith("images"))


def _read(store: ArtifactStore, key: str, most: int) -> tuple[Artifact, pa.Table] | None:
    """The artifact and its table, of up to so many rows."""
    artifact = earlier.find(store, "ingest", key)
    if artifact is None or not artifact.tables.get(CONTENTS) or artifact.rows(CONTENTS) > most:
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
