"""Select: ``features`` -> ``coreset`` and ``meta``. Medians and distances are streamed over the parts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms import coreset as coresets
from cwerm.algorithms import selection
from cwerm.algorithms.medians import MedianState, dimension_blocks
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common, extract, ingest
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, Writer, artifact_key

NAME = "select"
REFERENCE_SIZE = 20_000  # samples from which the posterior learns, where no ratio is given
MEDIAN_COUNT_BYTES = 2**30  # of one pass's counts, all classes
GROUPS_A_WORKER = 4  # of parts: counts come back once a group, as those of many classes are large


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the features, the coreset section and the seed."""
    return artifact_key(NAME, _parameters(job), [extract.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Pick the meta set, and the coreset among the other samples (paper, section 4.1)."""
    images = common.require(ingest, job, store)
    features = common.require(extract, job, store)
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    labels = common.labels_of(store, images)
    meta = held_out(job, store, images)
    candidates = np.setdiff1d(np.arange(len(labels)), meta)
    distances = _distances(job, store, features, labels, candidates)
    with blame("coreset", images.info["class_names"]):
        chosen = coresets.select(
            labels[candidates],
            size=coreset_size(job, len(labels), len(candidates)),
            method=job.coreset_method,
            scope=job.coreset.scope,
            seed=job.seed,
            **_evidence(job, store, features, labels, distances, candidates),
        )
    ids = candidates[chosen]
    coreset = _table("coreset", id=ids, label=labels[ids], distance=distances[ids])
    tables = {"coreset": [writer.write_part("coreset", 0, coreset)]}
    if job.has_meta:
        if job.data.trusted:
            trusted = store.read(features, "trusted_features", ["id", "label"])
            meta_table = trusted.cast(schema.table_schema("meta"))
        else:
            right = common.right_labels_of(store, images)
            meta_table = _table("meta", id=meta, label=right[meta])
        tables["meta"] = [writer.write_part("meta", 0, meta_table)]
    return writer.commit(
        tables, {"meta_images": "trusted_images" if job.data.trusted else "images"}
    )


def _evidence(
    job: Job,
    store: ArtifactStore,
    features: Artifact,
    labels: np.ndarray,
    distances: np.ndarray,
    candidates: np.ndarray,
) -> dict[str, Any]:
    """What the coreset method looks at besides the labels; some need all features in memory here."""
    needs = selection.load_method(job.coreset_method).NEEDS
    if needs == "labels":
        return {}
    if needs == "distances":
        return {"distances": distances[candidates]}
    vectors = common.column(store.read(features, "features", ["feature"]), "feature")[candidates]
    if needs in ("features", "surroundings"):
        return {"features": vectors}
    from cwerm.algorithms.reweighting.head_training import train_head  # loads torch

    _, record = train_head(vectors, labels[candidates], seed=job.seed)
    return {"outputs": record}


def coreset_size(job: Job, num_samples: int, num_candidates: int) -> int:
    """Samples in the coreset, of all that may be in it.

    Raises:
        ValueError: the ratio leaves none.
    """
    if job.coreset_method == "all":
        return num_candidates
    if job.coreset_ratio is None:
        return min(num_candidates, REFERENCE_SIZE)
    return coresets.coreset_size(num_samples, job.coreset_ratio)


def held_out(job: Job, store: ArtifactStore, images: Artifact) -> np.ndarray:
    """Ids of the training images kept for the meta set: no method trains on them. Sorted, int64.

    They are held out for every method, so that all train on the same samples; none are, unless
    ``coreset.meta`` says so.
    """
    if job.data.trusted or job.coreset.meta == "none":
        return np.empty(0, dtype=np.int64)
    names = images.info["class_names"]
    labels = common.right_labels_of(store, images)
    counts = np.bincount(labels, minlength=len(names))
    size = job.coreset.meta_per_class
    if counts.min() <= size:
        smallest = int(counts.argmin())
        raise UserError(
            f"coreset.meta_per_class: class '{names[smallest]}' has {counts[smallest]} training "
            f"images, too few to hold out {size} and train on the rest; ask for fewer"
        )
    return coresets.draw_balanced(labels, size * len(names), job.seed)


def held_out_key(job: Job) -> str:
    """What `held_out` depends on besides the images."""
    return "-".join(map(str, _meta_parameters(job).values()))


def _meta_parameters(job: Job) -> dict[str, Any]:
    if job.data.trusted:
        return {"seed": job.seed, "meta": "trusted"}
    if job.coreset.meta == "none":
        return {"seed": job.seed, "meta": "none"}
    return {
        "seed": job.seed,
        "meta": job.coreset.meta,
        "meta_per_class": job.coreset.meta_per_class,
    }


def _parameters(job: Job) -> dict[str, Any]:
    method = job.coreset_method
    size = {"size": REFERENCE_SIZE} if job.coreset_ratio is None else {"ratio": job.coreset_ratio}
    chosen = {} if method == "all" else {**size, "scope": job.coreset.scope}
    return {"method": method, **chosen, **_meta_parameters(job)}


def _table(name: str, **columns: np.ndarray) -> pa.Table:
    fields = schema.table_schema(name)
    arrays = [pa.array(columns[field.name], field.type) for field in fields]
    return pa.table(arrays, schema=fields)


def _distances(
    job: Job, store: ArtifactStore, features: Artifact, labels: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Distance of every sample to the median of its class over the candidates, float32 [n]."""
    parts = list(range(len(features.tables["features"])))
    others = np.setdiff1d(np.arange(len(labels)), candidates)
    num_classes = int(labels.max()) + 1
    counts = np.bincount(labels[candidates], minlength=num_classes)
    dimensions = common.dimensions(store, features)
    medians = np.empty((num_classes, dimensions))
    distances = np.empty(len(labels), dtype=np.float32)
    with worker_pool(job, NAME, len(parts)) as pool:
        groups = np.array_split(parts, min(len(parts), GROUPS_A_WORKER * pool.size))
        for block in dimension_blocks(num_classes, dimensions, MEDIAN_COUNT_BYTES):
            width = block.stop - block.start
            state = MedianState.start(num_classes, width, job.features.dtype, counts)
            while not state.done:
                count = functools.partial(_Counter, store, features, others, block, state)
                total: Any = 0
                for _, counted in pool.map(count, groups, "select: medians"):
                    total += counted
                state = state.advance(total)
            medians[:, block] = state.medians()
        measure = functools.partial(_Distances, store, features, medians)
        for _, (ids, values) in pool.map(measure, parts, "select: distances"):
            distances[ids] = values
    return distances


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

    def __call__(self, parts: np.ndarray) -> Any:
        total = self._count(int(parts[0]))
        for part in parts[1:]:
            total += self._count(int(part))
        return total

    def _count(self, part: int) -> Any:
        rows = self.store.read_part(self.features, "features", part)
        kept = ~np.isin(common.column(rows, "id"), self.others)
        vectors = common.column(rows, "feature")[kept][:, self.block]
        return self.state.count(vectors, common.column(rows, "label")[kept])


class _Distances:
    def __init__(self, store: ArtifactStore, features: Artifact, medians: np.ndarray) -> None:
        self.store, self.features, self.medians = store, features, medians

    def __call__(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.store.read_part(self.features, "features", part)
        ids, labels = common.column(rows, "id"), common.column(rows, "label")
        vectors = common.column(rows, "feature").astype(np.float32)
        return ids, coresets.distances_to_centers(vectors, labels, self.medians)
