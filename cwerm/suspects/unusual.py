"""Images unlike all others: blank ones, drawings among photos, pictures of none of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.stages import common
from cwerm.stages.plan import Plan

__all__ = ["Unusual", "farthest", "find_unusual"]

SHOWN = 48
REFERENCE = 2000  # images that all are compared with
NEIGHBOUR = 5  # the distance to the fifth of them; a copy or two of an odd image do not hide it


@dataclass(frozen=True)
class Unusual:
    """One image, and its row of ``unusual.csv``."""

    rank: int
    """1 is the farthest from all others."""
    path: str
    id: int
    label: str
    distance: float
    """To its fifth neighbour among 2,000 images, in units of what half of the images stay below."""


def find_unusual(steps: Plan) -> list[Unusual]:
    """The coreset's images that are the farthest from others; nothing says that they are wrong."""
    store = steps.store
    coreset = common.column(store.read(steps.made["select"], "coreset"), "id")
    labels = steps.execute("label").artifact
    ids = np.sort(coreset[~common.removed_of(store, labels)[coreset]])
    if len(ids) <= NEIGHBOUR + 1:
        return []
    taken = common.take_rows(store, steps.made["extract"], "features", "feature", ids)
    rows, distances = farthest(np.array(taken, np.float32), SHOWN, steps.job.seed)
    paths = store.read(steps.made["ingest"], "images", ["path"])["path"]
    names = steps.made["ingest"].info["class_names"]
    given = common.labels_of(store, labels)
    return [
        Unusual(rank, paths[number].as_py(), number, names[given[number]], distance)
        for rank, (number, distance) in enumerate(
            zip(ids[rows].tolist(), distances.tolist(), strict=True), 1
        )
    ]


def farthest(
    features: Float[np.ndarray, "n d"], count: int, seed: int
) -> tuple[Int64[np.ndarray, " found"], Float[np.ndarray, " found"]]:
    """Rows with the largest distance to their fifth neighbour, and that distance over its median.

    The neighbours are looked for among 2,000 of the rows, drawn by ``seed``; no row is its own neighbour.
    """
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(features))[:REFERENCE])
    neighbours = min(NEIGHBOUR, len(drawn) - 1)
    distances, ids = NeighborIndex(features[drawn], drawn).search(features, neighbours + 1)
    own = ids == np.arange(len(features))[:, None]
    # a row's own distance of 0 goes to the end, and the one before that is the last of the others
    others = np.where(own, np.inf, distances)
    others.sort(axis=1)
    of_each = others[:, neighbours - 1]
    rows = np.lexsort((np.arange(len(features)), -of_each))[:count]
    middle = float(np.median(of_each))
    return rows, of_each[rows] / (middle or 1.0)
