"""Images that are (nearly) the same, as the posterior found them; the same ones in training and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.store.artifacts import Artifact, ArtifactStore

__all__ = ["Duplicate", "find_duplicates", "groups_of", "list_duplicates", "same_images"]

NONE = -1
TRAINING, TEST = "training", "test"


@dataclass(frozen=True)
class Duplicate:
    """One image of a group, and its row of ``duplicates.csv``."""

    group: int
    """From 1; those whose labels differ come first, then those across training and test images."""
    path: str
    id: int
    """Among those of its split."""
    split: str
    """``training`` or ``test``."""
    label: str
    labels_differ: bool
    """Whether the group's images have different labels, of which at most one is right."""

    @property
    def picture(self) -> int | str:
        """What tells its picture from those of other images, of either split."""
        return self.id if self.split == TRAINING else f"{self.split}-{self.id}"


def find_duplicates(steps: Plan) -> list[Duplicate]:
    """Those of a plan whose weights are made, group by group."""
    weights = steps.store.read(steps.made["broadcast"], "weights").sort_by("id")
    labels = steps.execute("label").artifact
    return list_duplicates(steps.store, steps.made["ingest"], labels, weights)


def list_duplicates(
    store: ArtifactStore, images: Artifact, labels: Artifact, weights: Any
) -> list[Duplicate]:
    """Training images that are nearly the same, as far as the table of weights by id says so, and test images
    that are a training image, byte for byte.

    ``weights`` may be None.
    """
    numbers = np.full(images.rows("images"), NONE, np.int64)
    if weights is not None and not weights.column("duplicate_group").null_count:
        numbers = common.column(weights, "duplicate_group")
    of_training = common.labels_of(store, labels)
    found, of_test = _same_in_test(store, images), np.empty(0, np.int32)
    if found is not None:
        of_test = common.column(store.read(labels, "test_labels", ["label"]), "label")
        numbers = _joined(numbers, found)
    groups = groups_of(numbers, np.concatenate([of_training, of_test]), len(of_training))
    if not groups:
        return []
    names, paths = images.info["class_names"], [store.read(images, "images", ["path"])["path"]]
    if found is not None:
        paths.append(store.read(images, "test_images", ["path"])["path"])
    every = [of_training, of_test]
    listed = []
    for group, rows in enumerate(groups, 1):
        places = [(int(row >= len(of_training)), int(row)) for row in rows]
        places = [(part, row - part * len(of_training)) for part, row in places]
        differ = len({int(every[part][row]) for part, row in places}) > 1
        listed += [
            Duplicate(
                group,
                paths[part][row].as_py(),
                row,
                (TRAINING, TEST)[part],
                names[every[part][row]],
                differ,
            )
            for part, row in places
        ]
    return listed


def _same_in_test(store: ArtifactStore, images: Artifact) -> np.ndarray | None:
    """Of each test image a training image that is the same, -1 for none; None without digests of them."""
    if "test_digests" not in images.tables or not images.rows("test_images"):
        return None
    digests = [
        np.frombuffer(b"".join(store.read(images, table, ["digest"])["digest"].to_pylist()), "V16")
        for table in ("digests", "test_digests")
    ]
    return same_images(*digests)


def same_images(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The first of the known digests [n] that each of the asked [m] equals, -1 for none."""
    _, first, code = np.unique(
        np.concatenate([known, asked]), return_index=True, return_inverse=True
    )
    place = first[code[len(known) :]]
    return np.where(place < len(known), place, NONE)


def _joined(numbers: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Group numbers of training and test images [n + m]; the training images that tests repeat have one."""
    met = np.unique(same[same >= 0])
    alone = met[numbers[met] < 0]
    numbers = numbers.copy()
    numbers[alone] = numbers.max(initial=NONE) + 1 + np.arange(len(alone))
    return np.concatenate([numbers, np.where(same >= 0, numbers[same], NONE)])


def groups_of(
    numbers: np.ndarray, labels: np.ndarray, training: int | None = None
) -> list[np.ndarray]:
    """Rows with the same number, two or more; -1 for none.

    Those whose labels differ come first, then those across training and test images; the first ``training``
    rows are training images.
    """
    border = len(numbers) if training is None else training
    order = np.argsort(numbers, kind="stable")
    order = order[numbers[order] >= 0]
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    groups = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]

    def place(rows: np.ndarray) -> tuple[bool, bool, int]:
        across = rows[0] < border <= rows[-1]
        return len({*labels[rows].tolist()}) == 1, not across, int(rows[0])

    return sorted(groups, key=place)
