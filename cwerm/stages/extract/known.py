"""Features that an earlier run made of the same images, whatever their labels, order and places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cwerm.stages import common, earlier
from cwerm.stages.earlier import MOST_ROWS, EarlierRows
from cwerm.stages.extract.settings import SOURCES, TABLES, ExtractSettings
from cwerm.stages.ingest import DIGESTS
from cwerm.store.artifacts import Artifact, ArtifactStore, CorruptArtifactError, artifact_key

KEPT = 4  # artifacts remembered, of each stage
ENTRY = ("stage", "features", "ingest")


@dataclass(frozen=True)
class Known:
    """Rows of earlier features, and for each image of this run which row it has, -1 for none."""

    sources: EarlierRows
    rows: dict[str, list[np.ndarray]]
    """By table and part, int64 [rows of the part]."""

    def counts(self, table: str, part: int) -> tuple[int, int]:
        """Images of a part, and how many of them are known."""
        rows = self.rows[table][part]
        return len(rows), int(np.count_nonzero(rows >= 0))

    def read(self, store: ArtifactStore, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the features of the known ``rows`` [b] to their places in ``out`` [b, d]."""
        for of_part in self.sources.locate(rows):
            found = store.read_part(of_part.artifact, of_part.table, of_part.part, ["feature"])
            out[of_part.places] = common.column(found, "feature")[of_part.rows]


def find_known(
    store: ArtifactStore, settings: ExtractSettings, images: Artifact, tables: Iterable[str]
) -> Known:
    """What is known of the images that these tables of features are of."""
    wanted = _digests(store, images, tables)
    sources, digests = EarlierRows(), [np.empty((0, 2), np.uint64)]
    for artifact, of_its_images in _remembered(store, settings):
        for name, found in of_its_images.items():
            fits = len(sources) + len(found) <= MOST_ROWS
            if fits and len(found) == artifact.rows(name):
                sources.add(artifact, name)
                digests.append(found)
    known = earlier.Digests(np.concatenate(digests))
    places = {name: known.rows_of(found) for name, found in wanted.items()}
    rows = {name: common.by_part(found, images, SOURCES[name]) for name, found in places.items()}
    return Known(sources, rows)


def remember(
    store: ArtifactStore, settings: ExtractSettings, made: Artifact, images: Artifact
) -> None:
    """Let later runs find these features."""
    entry = {"stage": made.stage, "features": made.key, "ingest": images.key}
    entries = [entry, *(e for e in _entries(store, settings) if e != entry)]
    kept = [e for stage in TABLES for e in [e for e in entries if e["stage"] == stage][:KEPT]]
    earlier.remember(store.storage, _path(settings), kept)


def _path(settings: ExtractSettings) -> str:
    return f"known-features/{artifact_key('extract', settings.model_dump(), [])}.json"


def _entries(store: ArtifactStore, settings: ExtractSettings) -> list[earlier.Entry]:
    found = earlier.remembered(store.storage, _path(settings), ENTRY)
    return [entry for entry in found if entry["stage"] in TABLES]


def _remembered(
    store: ArtifactStore, settings: ExtractSettings
) -> Iterator[tuple[Artifact, dict[str, np.ndarray]]]:
    """Earlier features, and by their tables the digests of the images that they are of."""
    for entry in _entries(store, settings):
        try:
            made = earlier.find(store, entry["stage"], entry["features"])
            images = earlier.find(store, "ingest", entry["ingest"])
            if made and images:
                yield made, _digests(store, images, made.tables)
        except CorruptArtifactError:
            continue


def _digests(
    store: ArtifactStore, images: Artifact, tables: Iterable[str]
) -> dict[str, np.ndarray]:
    """By table of the features, the digests of their images, uint64 [n, 2]."""
    found = {}
    for name in tables:
        source = SOURCES.get(name, "")
        if images.tables.get(source):
            rows = store.read(images, DIGESTS[source], ["digest"])
            found[name] = earlier.as_numbers(rows.column("digest"))
    return found
