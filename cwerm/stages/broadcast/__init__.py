"""Broadcast: what was learned on the coreset -> ``weights`` of every sample (paper, Eq. 3).

The parts of the features are the queries; `coreset_neighbors` says where the index lies. The first pass
writes unscaled weights and adds them up; the second scales them to mean 1, over the data set or within
each given class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from cwerm.algorithms.spreading import broadcast as broadcasts
from cwerm.algorithms.spreading.agreement import label_agreement, without_own
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.runtime import capacity
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.broadcast.coreset_neighbors import Find, make_find
from cwerm.stages.outside import Outside
from cwerm.stages.reweight.learned_function import LearnedFunction
from cwerm.stages.stage import Context, Inputs, Settings, Stage
from cwerm.store.artifacts import Artifact, ArtifactStore, File, Writer

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement


class BroadcastSettings(Settings):
    """How weights reach every sample."""

    method: str
    neighbors: int | None
    power: float | None
    balance: Literal["none", "class"]

    @classmethod
    def of(cls, job: Job, outside: Outside) -> BroadcastSettings:
        """Those of this job."""
        del outside
        method = job.broadcast_method
        return cls(
            method=method,
            neighbors=None if method == "identity" else job.neighbors,
            power=job.broadcast.power if method == "vote" else None,
            balance="none" if method == "identity" else job.broadcast.balance,
        )

    @property
    def leaves_one_out(self) -> bool:
        """Whether a sample is not asked about itself."""
        return self.method in broadcasts.LEAVE_ONE_OUT

    def check_neighbors(self, coreset_size: int) -> None:
        """Refuse to ask for more neighbours than there are.

        Raises:
            UserError: naming the key to change.
        """
        most = coreset_size - self.leaves_one_out
        if self.neighbors is not None and self.neighbors > most:
            raise UserError(
                f"broadcast.neighbors: {self.neighbors} asked of a coreset of {coreset_size}; "
                "ask for fewer, or raise coreset.ratio"
            )


def _needs(job: Job) -> tuple[str, ...]:
    asked = ("ingest", "label", "select", "reweight")
    return asked if job.broadcast_method == "identity" else (*asked, "extract")


Part = tuple[int, np.ndarray]  # its place in the features, and the labels of its rows


def _run(settings: BroadcastSettings, inputs: Inputs, context: Context) -> Artifact:
    """Weigh each sample by its nearest coreset samples, or by the function learned on the coreset."""
    store, writer, images = context.store, context.writer, inputs["ingest"]
    coreset = store.read(inputs["select"], "coreset")
    weighted = store.read(inputs["reweight"], "coreset_weights")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label")
    assert np.array_equal(ids, common.column(weighted, "id"))
    weights = common.column(weighted, "weight")
    all_labels = common.labels_of(store, inputs["label"])
    parts = list(enumerate(common.by_part(all_labels, images, "images")))
    settings.check_neighbors(len(ids))
    weigh: Any
    sums: dict[int, np.ndarray] = {}
    raw: dict[int, File] = {}
    names = images.info["class_names"]
    with worker_pool(context, "broadcast", len(parts), gpu=True) as pool:
        if settings.neighbors is None:
            weigh = functools.partial(_Identity, images, writer, ids, weights)
        else:
            features = inputs["extract"]
            asked = settings.neighbors + settings.leaves_one_out
            most = context.limits["broadcast.max_index_bytes"]
            find = make_find(pool, store, features, writer, ids, asked, most)
            learned = {name: inputs[name] for name in ("ingest", "extract", "reweight")}
            device = capacity.size(context).device
            weigh = functools.partial(
                _Weigh, settings, store, learned, writer, find, (ids, labels, weights), device
            )
        for index, (file, part_sums) in pool.map(weigh, parts, "broadcast: weights"):
            raw[index], sums[index] = file, part_sums
        means = _means(settings, names, [sums[index] for index, _ in parts])
        work = [(index, raw[index]) for index, _ in parts]
        scale = functools.partial(_Scale, writer, means)
        scaled = dict(pool.map(scale, work, "broadcast: scale"))
    info: dict[str, Any] = {"raw_means": dict(zip(names, means.tolist(), strict=True))}
    learned_info = inputs["reweight"].info
    if "noise_rate" in learned_info:
        lows, highs = zip(*(scaled[index][1:] for index, _ in parts), strict=True)
        info["found"] = _found(learned_info, images.rows("images"), min(lows), max(highs))
    return writer.commit({"weights": [scaled[index][0] for index, _ in parts]}, info)


def _found(learned: dict[str, Any], samples: int, low: float, high: float) -> list[str]:
    """What the user is told of the labels, in lines."""
    from cwerm.algorithms.labels.result import headline  # loads torch

    rate = learned["noise_rate"] if learned["open"] else None
    line = headline(samples, rate, tuple(learned["noise_rate_interval"]), (low, high))
    return [line, *learned["warnings"]]


def _means(settings: BroadcastSettings, names: list[str], sums: list[np.ndarray]) -> np.ndarray:
    """What each class's weights are divided by, float64 [classes].

    From the parts' class sums and counts of weights, [2, classes] each.
    """
    columns = np.zeros((2, len(names)))
    for row, column in np.ndindex(columns.shape):  # fsum: whatever the parts, the same digits
        columns[row, column] = math.fsum(p[row, column] for p in sums if column < p.shape[1])
    total, count = columns
    if settings.balance == "none":
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


class _Weigh:
    """Finds the neighbours of one part and writes its unscaled weights."""

    def __init__(
        self,
        settings: BroadcastSettings,
        store: ArtifactStore,
        inputs: dict[str, Artifact],
        writer: Writer,
        make_find: Callable[[], Find],
        coreset: tuple[np.ndarray, np.ndarray, np.ndarray],
        device: str,
    ) -> None:
        self.ids, self.labels, self.weights = coreset
        self.settings, self.store, self.writer = settings, store, writer
        self.features, self.find = inputs["extract"], make_find()
        self.function = None
        if settings.method in ("function", "agreement"):
            width = common.dimensions(store, self.features)
            self.function = LearnedFunction(
                store, inputs["reweight"], inputs["ingest"], width, device
            )

    def __call__(self, work: Part) -> tuple[File, np.ndarray]:
        part, labels = work
        rows = self.store.read_part(self.features, "features", part)
        ids, vectors = common.column(rows, "id"), common.column(rows, "feature")
        method = self.settings.method
        distances, neighbor_ids = self.find(part, vectors)
        if self.settings.leaves_one_out:
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
            weights **= self.settings.power or 1
        nearest = neighbor_ids[:, 0], distances[:, 0], neighbor_labels[:, 0]
        return _write(self.writer, part, ids, labels, weights, nearest, judgement)


class _Identity:
    """Every sample that was reweighted keeps its weight; the meta set gets the mean, and no use of it."""

    def __init__(
        self, images: Artifact, writer: Writer, ids: np.ndarray, weights: np.ndarray
    ) -> None:
        self.writer = writer
        self.starts = np.cumsum([0, *(part.rows for part in images.tables["images"])])
        self.weight_of = np.full(images.rows("images"), weights.mean(), np.float32)
        self.weight_of[ids] = weights

    def __call__(self, work: Part) -> tuple[File, np.ndarray]:
        part, labels = work
        ids = np.arange(self.starts[part], self.starts[part + 1])
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
        columns += 3 * [None]
    file = writer.write_unpublished("weights", part, common.table("weights", *columns))
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


broadcast = Stage("broadcast", 2, _needs, BroadcastSettings.of, _run)
