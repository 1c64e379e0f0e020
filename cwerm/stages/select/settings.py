"""What select sees of a job, and which images its settings keep out of the coreset."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cwerm.algorithms import class_counts, selection
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.stages.labels_in_use import LabelReader, ids_at
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings
from cwerm.store.artifacts import Artifact, ArtifactStore


class HoldOut(Settings):
    """The training images that are kept for the meta set: no method trains on them."""

    per_class: int
    """0 where none are."""
    seed: int

    @classmethod
    def of(cls, job: Job) -> HoldOut:
        """That of this job: the same for every method, so that all train on the same samples."""
        if job.data.trusted or job.coreset.meta == "none":
            return cls(per_class=0, seed=0)
        return cls(per_class=job.coreset.meta_per_class, seed=job.seed)

    def ids(self, store: ArtifactStore, labels: Artifact, names: list[str]) -> np.ndarray:
        """Their ids, int64, ascending.

        Raises:
            UserError: a class has too few images.
        """
        if not self.per_class:
            return np.empty(0, dtype=np.int64)
        reader = LabelReader(store, labels)
        sizes = np.zeros(len(names), dtype=np.int64)
        for rows in reader.every():
            sizes += np.bincount(rows.right[~rows.removed], minlength=len(names))
        if sizes.min() <= self.per_class:
            smallest = int(sizes.argmin())
            raise UserError(
                f"coreset.meta_per_class: class '{names[smallest]}' has {sizes[smallest]} training "
                f"images, too few to hold out {self.per_class} and train on the rest; ask for fewer"
            )
        places = [
            class_counts.draw_in_class(number, size, self.per_class, self.seed)
            for number, size in enumerate(sizes.tolist())
        ]
        usable = ((rows.start, rows.right, ~rows.removed) for rows in reader.every())
        return ids_at(usable, sizes, places)

    def left_out(self, store: ArtifactStore, labels: Artifact, names: list[str]) -> np.ndarray:
        """Ids of the images that no method trains on: these, and what a person removed; int64, ascending.

        Raises:
            UserError: as `ids`.
        """
        found = [self.ids(store, labels, names)]
        for rows in LabelReader(store, labels).every():
            found.append(rows.start + np.flatnonzero(rows.removed))
        return np.unique(np.concatenate(found))


class SelectSettings(Settings):
    """How the coreset is chosen, and from what."""

    method: str
    method_version: int | None
    """Of a method of the user's own."""
    scope: Literal["class", "global"] | None
    ratio: float | None
    """Of the training images; without one, up to `size` samples."""
    size: int | None
    seed: int
    held_out: HoldOut
    trusted: bool
    """Whether the meta set is the trusted images."""
    keeps_removed: bool
    """Whether images that a person removed are in it: nothing is trained on it, and their labels tell how
    labels go wrong."""

    @classmethod
    def of(cls, job: Job, outside: Outside) -> SelectSettings:
        """Those of this job."""
        del outside
        whole = job.coreset_method == "all"
        ratio = None if whole else job.coreset_ratio
        return cls(
            method=job.coreset_method,
            method_version=_own_version(job.coreset_method),
            scope=None if whole else job.coreset.scope,
            ratio=ratio,
            size=None if whole else job.reference_size,
            seed=job.seed,
            held_out=HoldOut.of(job),
            trusted=bool(job.data.trusted),
            keeps_removed=job.reweighting.believes and not job.trains_on_coreset,
        )

    def left_out(self, store: ArtifactStore, labels: Artifact, names: list[str]) -> np.ndarray:
        """Ids of the images that may not be in the coreset, int64, ascending.

        Raises:
            UserError: as `HoldOut.ids`.
        """
        choose = self.held_out.ids if self.keeps_removed else self.held_out.left_out
        return choose(store, labels, names)

    def coreset_size(self, num_samples: int, num_candidates: int) -> int:
        """Samples in the coreset, of all that may be in it.

        Raises:
            ValueError: the ratio leaves none.
        """
        if self.ratio == 1:
            return num_candidates
        if self.ratio is not None:
            return class_counts.coreset_size(num_samples, self.ratio)
        return num_candidates if self.size is None else min(num_candidates, self.size)


def class_sizes(
    store: ArtifactStore, labels: Artifact, left_out: np.ndarray, num_classes: int
) -> np.ndarray:
    """How many images of each class may be in the coreset, int64 [classes]."""
    sizes = np.zeros(num_classes, dtype=np.int64)
    for rows in LabelReader(store, labels).every():
        sizes += np.bincount(rows.labels[rows.usable(left_out)], minlength=num_classes)
    return sizes


def _own_version(method: str) -> int | None:
    if ":" not in method:
        return None
    with blame("coreset.method"):
        return getattr(selection.load_method(method), "version", 1)
