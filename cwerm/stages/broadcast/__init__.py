"""Broadcast: what was learned on the coreset -> ``weights`` of every sample (paper, Eq. 3).

The parts of the features are the queries; `coreset_neighbors` says where the index lies. The first pass
writes unscaled weights and adds them up; the second scales them to mean 1, over the data set or within
each given class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms.spreading import broadcast as broadcasts
from cwerm.algorithms.spreading.agreement import label_agreement, without_own
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime import capacity
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common, extract, ingest, reweight, select
from cwerm.stages.broadcast.coreset_neighbors import Find, make_find
from cwerm.stages.reweight.learned_function import LearnedFunction
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement

NAME = "broadcast"


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on what was learned on the coreset and how it spreads."""
    return artifact_key(NAME, _parameters(job), [reweight.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Weigh each sample by its nearest coreset samples, or by the function learned on the coreset."""
    features = common.require(extract, job, store)
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    coreset = store.read(common.require(select, job, store), "coreset")
    weighted = store.read(common.require(reweight, job, store), "coreset_weights")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label")
    assert np.array_equal(ids, common.column(weighted, "id"))
    weights = common.column(weighted, "weight")
    parts = list(range(len(features.tables["features"])))
    identity = job.broadcast_method == "identity"
    if not identity:
        check_neighbors(job, len(ids))
    weigh: Any
    sums: dict[int, np.ndarray] = {}
    raw: dict[int, File] = {}
    names = common.require(ingest, job, store).info["class_names"]
    with worker_pool(job, NAME, len(parts), gpu=True) as pool:
        if identity:
            weigh = functools.partial(_Identity, store, features, writer, ids, weights)
        else:
            asked = job.neighbors + _leaves_one_out(job)
            most = job.broadcast.max_index_bytes
            find = make_find(pool, store, features, writer, ids, asked, most)
            device = capacity.size(job).device
            weigh = functools.partial(
                _Weigh, job, store, features, writer, find, (ids, labels, weights), device
            )
        for index, (file, part_sums) in pool.map(weigh, parts, "broadcast: weights"):
            raw[index], sums[index] = file, part_sums
        means = _means(job, names, [sums[index] for index in parts])
        work = [(index, raw[index]) for index in parts]
        scale = functools.partial(_Scale, writer, means)
        scaled = dict(pool.map(scale, work, "broadcast: scale"))
    info: dict[str, Any] = {"raw_means": dict(zip(names, means.tolist(), strict=True))}
    learned = common.require(reweight, job, store).info
    if "noise_rate" in learned:
        lows, highs = zip(*(scaled[index][1:] for index in parts), strict=True)
        info["found"] = _found(learned, features.rows("features"), min(lows), max(highs))
    return writer.commit({"weights": [scaled[index][0] for index in parts]}, info)


def _found(learned: dict[str, Any], samples: int, low: float, high: float) -> list[str]:
    """What the user is told of the labels, in lines."""
    from cwerm.algorithms.labels.result import headline  # loads torch

    rate = learned["noise_rate"] if learned["open"] else None
    line = headline(samples, rate, tuple(learned["noise_rate_interval"]), (low, high))
    return [line, *learned["warnings"]]


def _means(job: Job, names: list[str], sums: list[np.ndarray]) -> np.ndarray:
    """What each class's weights are divided by, float64 [classes].

    From the parts' class sums and counts of weights, [2, classes] each.
    """
    columns = np.zeros((2, len(names)))
    for row, column in np.ndindex(columns.shape):  # fsum: whatever the parts, the same digits
        columns[row, column] = math.fsum(p[row, column] for p in sums if column < p.shape[1])
    total, count = columns
    if job.broadcast.balance == "none":
        mean = math.fsum(total) / count.sum()
        if not mean > 0:
            raise UserError("reweight: all weights are zero; lower reweight.lr or weight_lr")
        return np.full(len(names), mean)
    lost = np.flatnonzero((total == 0) & (count > 0))
    if len(lost):
        raise UserError(
            f"broadcast.balance: all weights of class '{names[lost[0]]}' are zero, as its labels look "
            "wrong; check that class, enlarge the meta set, or use broadcast.balance=none"
        )
    return total / np.maximum(count, 1)


def check_neighbors(job: Job, coreset_size: int) -> None:
    """Refuse to ask for more neighbours than there are.

    Raises:
        UserError: naming the key to change.
    """
    most = coreset_size - _leaves_one_out(job)
    if job.neighbors > most:
        raise UserError(
            f"broadcast.neighbors: {job.neighbors} asked of a coreset of {coreset_size}; "
            "ask for fewer, or raise coreset.ratio"
        )


def _leaves_one_out(job: Job) -> bool:
    return job.broadcast_method in broadcasts.LEAVE_ONE_OUT


def _parameters(job: Job) -> dict[str, Any]:
    method = job.broadcast_method
    if method == "identity":
        return {"method": method}
    balance = {"balance": job.broadcast.balance} if job.broadcast.balance != "none" else {}
    power = {"power": job.broadcast.power} if method == "vote" else {}
    return {"method": method, "neighbors": job.neighbors, **power, **balance}


class _Weigh:
    """Finds the neighbours of one part and writes its unscaled weights."""

    def __init__(
        self,
        job: Job,
        store: ArtifactStore,
        features: Artifact,
        writer: Writer,
        make_find: Callable[[], Find],
        coreset: tuple[np.ndarray, np.ndarray, np.ndarray],
        device: str,
    ) -> None:
        self.ids, self.labels, self.weights = coreset
        self.job, self.store, self.features, self.writer = job, store, features, writer
        self.find = make_find()
        self.function = None
        if job.broadcast_method in ("function", "agreement"):
            learned, images = (common.require(stage, job, store) for stage in (reweight, ingest))
            self.function = LearnedFunction(
                job, store, learned, images, common.dimensions(store, features), device
            )

    def __call__(self, part: int) -> tuple[File, np.ndarray]:
        rows = self.store.read_part(self.features, "features", part)
        ids, labels = common.column(rows, "id"), common.column(rows, "label")
        vectors, method = common.column(rows, "feature"), self.job.broadcast_method
        distances, neighbor_ids = self.find(part, vectors)
        if _leaves_one_out(self.job):
            distances, neighbor_ids = without_own(distances, neighbor_ids, ids)
        positions = np.searchsorted(self.ids, neighbor_ids)  # coreset ids are sorted
        neighbor_labels = self.labels[positions]
        judgement = None
        if self.function:
            place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
            rows_of = np.where(self.ids[place] == ids, place, -1)
            judgement = self.function.judge(vectors, labels, rows_of)
        if judgement:
            weights = judgement.weight
        elif self.function:
            agreement = label_agreement(neighbor_labels, labels) if method == "agreement" else None
            weights = self.function.weigh(part, vectors, labels, agreement)
        else:
            weigh = broadcasts.batch_method(method)
            weights = weigh(self.weights[positions], neighbor_labels, labels)
            weights **= self.job.broadcast.power if method == "vote" else 1
        nearest = neighbor_ids[:, 0], distances[:, 0], neighbor_labels[:, 0]
        return _write(self.writer, part, ids, labels, weights, nearest, judgement)


class _Identity:
    """Every sample that was reweighted keeps its weight; the meta set gets the mean, and no use of it."""

    def __init__(
        self,
        store: ArtifactStore,
        features: Artifact,
        writer: Writer,
        ids: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        self.store, self.features, self.writer = store, features, writer
        self.weight_of = np.full(features.rows("features"), weights.mean(), np.float32)
        self.weight_of[ids] = weights

    def __call__(self, part: int) -> tuple[File, np.ndarray]:
        rows = self.store.read_part(self.features, "features", part, ["id", "label"])
        ids, labels = common.column(rows, "id"), common.column(rows, "label")
        nearest = ids, np.zeros(len(ids), np.float32), labels
        return _write(self.writer, part, ids, labels, self.weight_of[ids], nearest)


def _write(
    writer: Writer,
    part: int,
    ids: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    nearest: tuple[np.ndarray, np.ndarray, np.ndarray],
    judgement: Judgement | None = None,
) -> tuple[File, np.ndarray]:
    """One part of the weights as they are, and by class their sums and counts."""
    columns: list[Any] = [ids, labels, weights, *nearest]
    if judgement:
        columns += [judgement.quality, judgement.suggested, judgement.suggestion_probability]
    else:
        columns += 3 * [[None] * len(ids)]
    fields = schema.table_schema("weights")
    arrays = [pa.array(c, field.type) for c, field in zip(columns, fields, strict=True)]
    file = writer.write_unpublished("weights", part, pa.table(arrays, schema=fields))
    sums = [math.fsum(weights[labels == label].tolist()) for label in range(labels.max() + 1)]
    return file, np.array([sums, np.bincount(labels)])


class _Scale:
    """Divides one part's weights by the mean of the data set or of their class, and publishes it."""

    def __init__(self, writer: Writer, means: np.ndarray) -> None:
        self.writer, self.means = writer, means

    def __call__(self, work: tuple[int, File]) -> tuple[File, float, float]:
        part, file = work
        table = self.writer.read_unpublished(file)
        means = self.means[common.column(table, "label")]
        weights = common.column(table, "weight").astype(np.float64) / means
        scaled: Any = pa.array(weights, pa.float32())
        column = table.schema.get_field_index("weight")
        table = table.set_column(column, table.schema.field("weight"), scaled)
        file = self.writer.write_part("weights", part, table)
        return file, float(weights.min()), float(weights.max())
