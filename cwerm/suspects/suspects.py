"""The samples whose labels look wrong, each with what speaks for another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.stages import common
from cwerm.stages.plan import Plan

__all__ = ["Suspect", "find_suspects", "nearest_of"]


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
    store, images = steps.store, steps.made["ingest"]
    if not steps.made["reweight"].info["open"]:
        return []
    weights = store.read(steps.made["broadcast"], "weights").sort_by("id")
    label, suggested, quality, probability = (
        common.column(weights, name)
        for name in ("label", "suggested_label", "quality", "suggestion_probability")
    )
    # another class is suggested for a label that is an issue, and for no other
    removed = common.removed_of(store, steps.execute("label").artifact)
    ids = np.flatnonzero((suggested != label) & ~removed)
    ids = ids[np.lexsort((ids, quality[ids]))]
    coreset = common.column(store.read(steps.made["select"], "coreset"), "id")
    right = coreset[(suggested[coreset] == label[coreset]) & ~removed[coreset]]
    features = steps.made["extract"]

    def vectors(of: np.ndarray) -> np.ndarray:
        width = common.dimensions(store, features)
        taken = common.take_rows(store, features, "features", "feature", of)
        return np.array(taken, np.float32).reshape(-1, width)

    place = nearest_of(vectors(ids), suggested[ids], vectors(right), label[right])
    nearest = np.where(place >= 0, right[place], -1) if len(right) else place
    names, paths = images.info["class_names"], store.read(images, "images", ["path"])["path"]
    return [
        Suspect(
            rank,
            paths[i].as_py(),
            int(i),
            names[label[i]],
            names[suggested[i]],
            float(quality[i]),
            float(probability[i]),
            paths[near].as_py() if near >= 0 else "",
            int(near),
        )
        for rank, (i, near) in enumerate(zip(ids.tolist(), nearest.tolist(), strict=True), 1)
    ]


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
