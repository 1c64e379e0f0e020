"""Select: -> ``coreset`` and ``meta``. Class medians and distances are streamed over the parts."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np

from cwerm.algorithms import coreset as coresets
from cwerm.algorithms import selection
from cwerm.algorithms.medians import MedianState, dimension_blocks
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Inputs, Settings, Stage
from cwerm.store.artifacts import Artifact, ArtifactStore

MEDIAN_COUNT_BYTES = 2**30  # of one pass's counts, all classes
GROUPS_A_WORKER = 4  # of parts: counts come back once a group, as those of many classes are large


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
        usable = np.flatnonzero(~common.removed_of(store, labels))
        right = common.right_labels_of(store, labels)[usable]
        counts = np.bincount(right, minlength=len(names))
        if counts.min() <= self.per_class:
            smallest = int(counts.argmin())
            raise UserError(
                f"coreset.meta_per_class: class '{names[smallest]}' has {counts[smallest]} training "
                f"images, too few to hold out {self.per_class} and train on the rest; ask for fewer"
            )
        return usable[coresets.draw_balanced(right, self.per_class * len(names), self.seed)]

    def left_out(self, store: ArtifactStore, labels: Artifact, names: list[str]) -> np.ndarray:
        """Ids of the images that no method trains on: these, and what a person removed; int64, ascending.

        Raises:
            UserError: as `ids`.
        """
        removed = np.flatnonzero(common.removed_of(store, labels))
        return np.union1d(self.ids(store, labels, names), removed)


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

    def candidates(self, store: ArtifactStore, labels: Artifact, names: list[str]) -> np.ndarray:
        """Ids of the images that may be in the coreset, int64, ascending.

        Raises:
            UserError: as `HoldOut.ids`.
        """
        choose = self.held_out.ids if self.keeps_removed else self.held_out.left_out
        return np.setdiff1d(np.arange(labels.rows("labels")), choose(store, labels, names))

    def coreset_size(self, num_samples: int, num_candidates: int) -> int:
        """Samples in the coreset, of all that may be in it.

        Raises:
            ValueError: the ratio leaves none.
        """
        if self.ratio == 1:
            return num_candidates
        if self.ratio is not None:
            return coresets.coreset_size(num_samples, self.ratio)
        return num_candidates if self.size is None else min(num_candidates, self.size)


def _own_version(method: str) -> int | None:
    if ":" not in method:
        return None
    with blame("coreset.method"):
        return getattr(selection.load_method(method), "version", 1)


def _needs(job: Job) -> tuple[str, ...]:
    with blame("coreset.method"):
        by_labels = selection.load_method(job.coreset_method).NEEDS == "labels"
    return ("ingest", "label") if by_labels else ("ingest", "label", "extract")


def _run(settings: SelectSettings, inputs: Inputs, context: Context) -> Artifact:
    """Pick the meta set, and the coreset among the other samples (paper, section 4.1)."""
    store, writer, images = context.store, context.writer, inputs["ingest"]
    names = images.info["class_names"]
    labels = common.labels_of(store, inputs["label"])
    meta = settings.held_out.ids(store, inputs["label"], names)
    candidates = settings.candidates(store, inputs["label"], names)
    distances, evidence = None, {}
    if "extract" in inputs:
        distances = _distances(context, inputs["extract"], labels, candidates)
        evidence = _evidence(settings, store, inputs["extract"], labels, distances, candidates)
    with blame("coreset", names):
        chosen = coresets.select(
            labels[candidates],
            size=settings.coreset_size(len(labels), len(candidates)),
            method=settings.method,
            scope=settings.scope or "class",
            seed=settings.seed,
            **evidence,
        )
    ids = candidates[chosen]
    coreset = common.table(
        "coreset", ids, labels[ids], None if distances is None else distances[ids]
    )
    tables = {"coreset": [writer.write_part("coreset", 0, coreset)]}
    if settings.trusted:
        given = store.read(images, "trusted_labels", ["id", "label"])
        tables["meta"] = [writer.write_part("meta", 0, given)]
    elif len(meta):
        right = common.right_labels_of(store, inputs["label"])
        tables["meta"] = [writer.write_part("meta", 0, common.table("meta", meta, right[meta]))]
    return writer.commit(
        tables, {"meta_images": "trusted_images" if settings.trusted else "images"}
    )


def _evidence(
    settings: SelectSettings,
    store: ArtifactStore,
    features: Artifact,
    labels: np.ndarray,
    distances: np.ndarray,
    candidates: np.ndarray,
) -> dict[str, Any]:
    """What the coreset method looks at besides the labels; some need all features in memory here."""
    needs = selection.load_method(settings.method).NEEDS
    if needs == "distances":
        return {"distances": distances[candidates]}
    vectors = common.column(store.read(features, "features", ["feature"]), "feature")[candidates]
    if needs in ("features", "surroundings"):
        return {"features": vectors}
    from cwerm.algorithms.reweighting.head_training import train_head  # loads torch

    _, record = train_head(vectors, labels[candidates], seed=settings.seed)
    return {"outputs": record}


def _distances(
    context: Context, features: Artifact, labels: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Distance of every sample to the median of its class over the candidates, float32 [n]."""
    store = context.store
    parts = list(range(len(features.tables["features"])))
    of_part = common.by_part(labels, features, "features")
    others = np.setdiff1d(np.arange(len(labels)), candidates)
    num_classes = int(labels.max()) + 1
    counts = np.bincount(labels[candidates], minlength=num_classes)
    dimensions, dtype = common.dimensions(store, features), common.feature_type(store, features)
    medians = np.empty((num_classes, dimensions))
    distances = np.empty(len(labels), dtype=np.float32)
    work = list(zip(parts, of_part, strict=True))
    pool = worker_pool(context, "select", len(parts))
    groups = np.array_split(parts, min(len(parts), GROUPS_A_WORKER * pool.size))
    grouped = [[work[part] for part in group] for group in groups]
    for block in dimension_blocks(num_classes, dimensions, MEDIAN_COUNT_BYTES):
        width = block.stop - block.start
        state = MedianState.start(num_classes, width, dtype, counts)
        while not state.done:
            count = functools.partial(_Counter, store, features, others, block, state)
            total: Any = 0
            for _, counted in pool.map(count, grouped, "select: medians"):
                total += counted
            state = state.advance(total)
        medians[:, block] = state.medians()
    measure = functools.partial(_Distances, store, features, medians)
    for _, (ids, values) in pool.map(measure, work, "select: distances"):
        distances[ids] = values
    return distances


Part = tuple[int, np.ndarray]  # its place in the features, and the labels of its rows


class _Counter:
    """What some parts add to the counts that the class medians need."""

    def __init__(
        self,
        store: ArtifactStore,
        features: Artifact,
        others: np.ndarray,
        block: slice,
        state: MedianState,
    ) -> None:
        self.store, self.features, self.others = store, features, others
        self.block, self.state = block, state

    def __call__(self, parts: list[Part]) -> Any:
        total = self._count(*parts[0])
        for part in parts[1:]:
            total += self._count(*part)
        return total

    def _count(self, part: int, labels: np.ndarray) -> Any:
        rows = self.store.read_part(self.features, "features", part)
        kept = ~np.isin(common.column(rows, "id"), self.others)
        vectors = common.column(rows, "feature")[kept][:, self.block]
        return self.state.count(vectors, labels[kept])


class _Distances:
    def __init__(self, store: ArtifactStore, features: Artifact, medians: np.ndarray) -> None:
        self.store, self.features, self.medians = store, features, medians

    def __call__(self, work: Part) -> tuple[np.ndarray, np.ndarray]:
        part, labels = work
        rows = self.store.read_part(self.features, "features", part)
        ids = common.column(rows, "id")
        vectors = common.column(rows, "feature").astype(np.float32)
        return ids, coresets.distances_to_centers(vectors, labels, self.medians)


select = Stage("select", 2, _needs, SelectSettings.of, _run)
