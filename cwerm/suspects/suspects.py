"""The samples whose labels look wrong, each with what speaks for another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.store.artifacts import Artifact, ArtifactStore

__all__ = ["Suspect", "find_held_out", "find_suspects", "nearest_of"]


@dataclass(frozen=True)
class Suspect:
    """One sample, and its row of ``suspects.csv``."""

    rank: int
    """1 is the most probable mistake."""
    path: str
    id: int
    label: str
    suggested: str
    quality: float
    """The probability that the given label is right."""
    suggested_probability: float
    nearest_path: str
    """The nearest image of the suggested class whose own label looks right; "" where there is none."""
    nearest_id: int
    """Its id, -1 where there is none."""


def find_suspects(steps: Plan) -> list[Suspect]:
    """Those of a plan whose weights are made, by the quality of their labels.

    Where no wrong labels were found, there are none.
    """
    removed = common.removed_of(steps.store, steps.execute("label").artifact)
    return _found(steps, "images", "features", steps.made["broadcast"], "weights", removed)


def find_held_out(steps: Plan, kind: str) -> list[Suspect] | None:
    """Likewise the ``test`` or ``trusted`` images, each with the nearest training image.

    None where they were not judged.
    """
    judged, table = steps.made.get("judge_test"), f"{kind}_judgements"
    if judged is None or table not in judged.tables:
        return None
    removed = np.zeros(judged.rows(table), bool)
    if kind == "test":
        in_use = steps.store.read(steps.execute("label").artifact, "test_labels")
        removed = common.column(in_use, "removed")
    return _found(steps, f"{kind}_images", f"{kind}_features", judged, table, removed)


def _found(
    steps: Plan, images: str, features: str, judged: Artifact, table: str, removed: np.ndarray
) -> list[Suspect]:
    """Suspects among the rows of a table of judgements, with the nearest training images."""
    store, ingested = steps.store, steps.made["ingest"]
    if not steps.made["reweight"].info["open"]:
        return []
    rows = store.read(judged, table).sort_by("id")
    label, suggested, quality, probability = (
        common.column(rows, name)
        for name in ("label", "suggested_label", "quality", "suggestion_probability")
    )
    # another class is suggested for a label that is an issue, and for no other
    ids = np.flatnonzero((suggested != label) & ~removed)
    ids = ids[np.lexsort((ids, quality[ids]))]
    of = steps.made["embed_test" if images == "test_images" else "extract"]
    nearest = _nearest_right(steps, _vectors(store, of, features, ids), suggested[ids])
    names = ingested.info["class_names"]
    paths, near_paths = (
        store.read(ingested, name, ["path"])["path"] for name in (images, "images")
    )
    return [
        Suspect(
            rank,
            paths[i].as_py(),
            int(i),
            names[label[i]],
            names[suggested[i]],
            float(quality[i]),
            float(probability[i]),
            near_paths[near].as_py() if near >= 0 else "",
            int(near),
        )
        for rank, (i, near) in enumerate(zip(ids.tolist(), nearest.tolist(), strict=True), 1)
    ]


def _nearest_right(steps: Plan, queries: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each query [m, d] the nearest coreset image of the wanted class whose label looks right.

    -1 where there is none.
    """
    store = steps.store
    weights = store.read(steps.made["broadcast"], "weights").sort_by("id")
    label, suggested = (common.column(weights, name) for name in ("label", "suggested_label"))
    removed = common.removed_of(store, steps.execute("label").artifact)
    coreset = common.column(store.read(steps.made["select"], "coreset"), "id")
    right = coreset[(suggested[coreset] == label[coreset]) & ~removed[coreset]]
    vectors = _vectors(store, steps.made["extract"], "features", right)
    place = nearest_of(queries, wanted, vectors, label[right])
    return np.where(place >= 0, right[place], -1) if len(right) else place


def _vectors(store: ArtifactStore, features: Artifact, table: str, ids: np.ndarray) -> np.ndarray:
    width = common.dimensions(store, features, table)
    taken = common.take_rows(store, features, table, "feature", ids)
    return np.array(taken, np.float32).reshape(-1, width)


def nearest_of(
    queries: np.ndarray, wanted: np.ndarray, vectors: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """For each query [m, d] the row of its nearest vector [n, d] of the wanted class; -1 for none."""
    found = np.full(len(queries), -1, np.int64)
    for name in np.unique(wanted):
        rows, asking = np.flatnonzero(labels == name), np.flatnonzero(wanted == name)
        if len(rows):
            _, near = NeighborIndex(vectors[rows], rows).search(queries[asking], 1)
            found[asking] = near[:, 0]
    return found
