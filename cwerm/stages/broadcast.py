"""Broadcast: coreset weights -> ``weights`` of every sample (paper, Eq. 3).

The coreset's index is replicated to every worker and the parts of the features are the queries. The
first pass writes unscaled weights and adds them up; the second scales them to mean 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm import schema
from cwerm.algorithms import broadcast as broadcasts
from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key
from cwerm.config import Job
from cwerm.errors import UserError, blame
from cwerm.stages import common, extract, reweight, select
from cwerm.stages.parallel import worker_pool

NAME = "broadcast"


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the coreset's weights and the broadcast section."""
    return artifact_key(NAME, job.broadcast.model_dump(), [reweight.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Find each sample's nearest coreset samples and derive its weight from theirs."""
    features = common.require(extract, job, store)
    writer = Writer(store, NAME, key(job, store), job.broadcast.model_dump())
    coreset = store.read(common.require(select, job, store), "coreset")
    learned = store.read(common.require(reweight, job, store), "coreset_weights")
    ids = common.column(coreset, "id")
    assert np.array_equal(ids, common.column(learned, "id"))
    if job.broadcast.neighbors > len(ids):
        raise UserError(
            f"broadcast.neighbors: {job.broadcast.neighbors} asked of a coreset of {len(ids)}; "
            "ask for fewer"
        )
    vectors = np.stack(common.take_rows(store, features, "features", "feature", ids))
    labels, weights = common.column(coreset, "label"), common.column(learned, "weight")

    parts = list(range(len(features.tables["features"])))
    search = functools.partial(
        _Search, job, store, features, writer, (vectors, ids, labels, weights)
    )
    sums: dict[int, float] = {}
    raw: dict[int, File] = {}
    with worker_pool(job, len(parts), gpu=True) as pool:
        for index, (file, total) in pool.map(search, parts, "broadcast: search"):
            raw[index], sums[index] = file, total
        mean = math.fsum(sums.values()) / features.rows("features")
        if not mean > 0:
            raise UserError("reweight: all weights are zero; lower reweight.lr or weight_lr")
        work = [(index, raw[index]) for index in parts]
        scale = functools.partial(_Scale, writer, mean)
        scaled = dict(pool.map(scale, work, "broadcast: scale"))
    return writer.commit({"weights": [scaled[index] for index in parts]}, {"raw_mean": mean})


class _Search:
    """Holds the coreset's index; finds the neighbours of one part and writes its unscaled weights."""

    def __init__(
        self,
        job: Job,
        store: ArtifactStore,
        features: Artifact,
        writer: Writer,
        coreset: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        vectors, self.ids, self.labels, self.weights = coreset
        self.store, self.features, self.writer = store, features, writer
        self.neighbors = job.broadcast.neighbors
        with blame("broadcast.method"):
            self.weigh = broadcasts.batch_method(job.broadcast.method)
        self.index = NeighborIndex(vectors, self.ids)

    def __call__(self, part: int) -> tuple[File, float]:
        rows = self.store.read_part(self.features, "features", part)
        labels = common.column(rows, "label")
        distances, neighbor_ids = self.index.search(common.column(rows, "feature"), self.neighbors)
        positions = np.searchsorted(self.ids, neighbor_ids)  # coreset ids are sorted
        neighbor_labels = self.labels[positions]
        weights = self.weigh(self.weights[positions], neighbor_labels, labels)
        table = pa.table(
            [
                rows.column("id").combine_chunks(),
                pa.array(labels, pa.int32()),
                pa.array(weights, pa.float32()),
                pa.array(neighbor_ids[:, 0], pa.int64()),
                pa.array(distances[:, 0], pa.float32()),
                pa.array(neighbor_labels[:, 0], pa.int32()),
            ],
            schema=schema.table_schema("weights"),
        )
        return self.writer.write_unpublished("weights", part, table), math.fsum(weights.tolist())


class _Scale:
    """Divides one part's weights by the mean over the data set and publishes it."""

    def __init__(self, writer: Writer, mean: float) -> None:
        self.writer, self.mean = writer, mean

    def __call__(self, work: tuple[int, File]) -> File:
        part, file = work
        table = self.writer.read_unpublished(file)
        weights = common.column(table, "weight").astype(np.float64) / self.mean
        scaled: Any = pa.array(weights, pa.float32())
        column = table.schema.get_field_index("weight")
        table = table.set_column(column, table.schema.field("weight"), scaled)
        return self.writer.write_part("weights", part, table)
