"""Features that an earlier run made of the same images, whatever their labels, order and places.

The last artifacts made with the same backbone are remembered by a small object in the store. It is a hint:
where it, or what it names, is gone or damaged, images are embedded again. Only a part that turns out to be
damaged as it is copied is an error, as for every stage that reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cwerm.stages import common
from cwerm.stages.extract.settings import SOURCES, TABLES, ExtractSettings
from cwerm.stages.ingest import DIGESTS
from cwerm.store.artifacts import Artifact, ArtifactStore, CorruptArtifactError, artifact_key
from cwerm.store.storage import parse_mapping

KEPT = 4  # artifacts remembered, of each stage
ENTRY = ("stage", "features", "ingest")
MOST_IMAGES = 20_000_000  # whose digests are compared in the driver, at some 50 bytes each


@dataclass(frozen=True)
class Known:
    """Rows of earlier features, and for each image of this run which row it has, -1 for none."""

    sources: list[tuple[Artifact, str, np.ndarray]]
    """Artifact, table, and where each of its parts ends, among all rows of the sources."""
    rows: dict[str, list[np.ndarray]]
    """By table and part, int64 [rows of the part]."""

    def counts(self, table: str, part: int) -> tuple[int, int]:
        """Images of a part, and how many of them are known."""
        rows = self.rows[table][part]
        return len(rows), int(np.count_nonzero(rows >= 0))

    def read(self, store: ArtifactStore, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy the features of the known ``rows`` [b] to their places in ``out`` [b, d]."""
        start = 0
        for artifact, table, ends in self.sources:
            part_of = np.searchsorted(ends, rows, side="right")
            part_of[(rows < start) | (rows >= ends[-1])] = -1
            for part in np.unique(part_of[part_of >= 0]):
                first = ends[part] - artifact.tables[table][part].rows
                wanted = np.flatnonzero(part_of == part)
                found = store.read_part(artifact, table, int(part), ["feature"])
                out[wanted] = common.column(found, "feature")[rows[wanted] - first]
            start = int(ends[-1])


def find_known(
    store: ArtifactStore, settings: ExtractSettings, images: Artifact, tables: Iterable[str]
) -> Known:
    """What is known of the images that these tables of features are of."""
    wanted = _digests(store, images, tables)
    sources, digests, total = [], [], 0
    for artifact, of_its_images in _remembered(store, settings):
        for name, found in of_its_images.items():
            parts = artifact.tables[name]
            if len(found) != sum(part.rows for part in parts) or total + len(found) > MOST_IMAGES:
                continue
            ends = total + np.cumsum([part.rows for part in parts])
            sources.append((artifact, name, ends))
            digests.append(found)
            total += len(found)
    places = _places(digests, wanted)
    rows = {name: common.by_part(found, images, SOURCES[name]) for name, found in places.items()}
    return Known(sources, rows)


def remember(
    store: ArtifactStore, settings: ExtractSettings, made: Artifact, images: Artifact
) -> None:
    """Let later runs find these features."""
    entry = {"stage": made.stage, "features": made.key, "ingest": images.key}
    entries = [entry, *(e for e in _entries(store, settings) if e != entry)]
    kept = [e for stage in TABLES for e in [e for e in entries if e["stage"] == stage][:KEPT]]
    text = json.dumps({"made": kept}, indent=1)
    store.storage.write_bytes(_path(settings), text.encode())


def _path(settings: ExtractSettings) -> str:
    return f"known-features/{artifact_key('extract', settings.model_dump(), [])}.json"


def _entries(store: ArtifactStore, settings: ExtractSettings) -> list[dict[str, str]]:
    try:
        entries = parse_mapping(store.storage.read_bytes(_path(settings)))["made"]
        known = [{name: str(entry[name]) for name in ENTRY} for entry in entries]
        return [
            entry
            for entry in known
            if entry["stage"] in TABLES
            and entry["features"].isalnum()
            and entry["ingest"].isalnum()
        ]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _remembered(
    store: ArtifactStore, settings: ExtractSettings
) -> Iterator[tuple[Artifact, dict[str, np.ndarray]]]:
    """Earlier features, and by their tables the digests of the images that they are of."""
    for entry in _entries(store, settings):
        try:
            made = store.find(entry["stage"], entry["features"])
            images = store.find("ingest", entry["ingest"])
            if made and images:
                yield made, _digests(store, images, made.tables)
        except CorruptArtifactError:
            continue


def _digests(
    store: ArtifactStore, images: Artifact, tables: Iterable[str]
) -> dict[str, np.ndarray]:
    """By table of the features, the digests of their images as two whole numbers each, uint64 [n, 2]."""
    found = {}
    for name in tables:
        source = SOURCES.get(name, "")
        if images.tables.get(source):
            column = store.read(images, DIGESTS[source], ["digest"]).column("digest")
            found[name] = np.frombuffer(b"".join(column.to_pylist()), np.uint64).reshape(-1, 2)
    return found


def _places(known: list[np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each wanted digest a row among the known ones that has it, -1 for none."""
    rows = np.concatenate(known) if known else np.empty((0, 2), np.uint64)
    order = np.argsort(rows[:, 0], kind="stable")
    first = rows[order, 0]
    places = {}
    for name, digests in wanted.items():
        at = np.searchsorted(first, digests[:, 0])
        inside = np.minimum(at, max(0, len(first) - 1))
        found = np.full(len(digests), -1, np.int64)
        if len(first):
            candidate = order[inside]
            same = (rows[candidate] == digests).all(axis=1)
            found[same] = candidate[same]
        places[name] = found
    return places
