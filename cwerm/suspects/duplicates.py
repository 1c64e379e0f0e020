"""Images that are (nearly) the same, as the posterior found them on its way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cwerm.stages import common
from cwerm.stages.plan import Plan

__all__ = ["Duplicate", "find_duplicates", "groups_of"]


@dataclass(frozen=True)
class Duplicate:
    """One image of a group, and its row of ``duplicates.csv``."""

    group: int
    """From 1; those whose labels differ come first."""
    path: str
    id: int
    label: str
    labels_differ: bool
    """Whether the group's images have different labels, of which at most one is right."""


def find_duplicates(steps: Plan) -> list[Duplicate]:
    """Those of a plan whose weights are made, group by group."""
    store, images = steps.store, steps.made["ingest"]
    weights = store.read(steps.made["broadcast"], "weights").sort_by("id")
    if weights.column("duplicate_group").null_count:
        return []
    numbers, labels = (common.column(weights, name) for name in ("duplicate_group", "label"))
    found = groups_of(numbers, labels)
    names, paths = images.info["class_names"], store.read(images, "images", ["path"])["path"]
    return [
        Duplicate(group, paths[i].as_py(), int(i), names[labels[i]], bool(differ))
        for group, ids in enumerate(found, 1)
        for differ in [len({*labels[ids].tolist()}) > 1]
        for i in ids.tolist()
    ]


def groups_of(numbers: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Rows with the same number, two or more; -1 for none; those whose labels differ first."""
    order = np.argsort(numbers, kind="stable")
    order = order[numbers[order] >= 0]
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    groups = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    return sorted(groups, key=lambda rows: (len({*labels[rows].tolist()}) == 1, rows[0]))
