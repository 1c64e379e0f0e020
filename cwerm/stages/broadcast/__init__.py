"""Broadcast: what was learned on the coreset -> ``weights`` of every sample (paper, Eq. 3).

The parts of the features are the queries; `coreset_neighbors` says where the index lies. The first pass
writes unscaled weights and adds them up; the second scales them to mean 1, over the data set or within
each given class.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms.exact_sums import ExactSums
from cwerm.algorithms.neighbors import made_for_gpus
from cwerm.errors import UserError
from cwerm.methods.samples import Reference
from cwerm.runtime import capacity
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.broadcast.coreset_neighbors import make_find
from cwerm.stages.broadcast.judging import Weigh, Work
from cwerm.stages.broadcast.settings import BroadcastSettings, needs
from cwerm.stages.labels_in_use import LabelReader
from cwerm.stages.stage import Context, Inputs, Stage
from cwerm.store.artifacts import Artifact, File
from cwerm.store.beside import Later, WriteBehind


def _run(settings: BroadcastSettings, inputs: Inputs, context: Context) -> Artifact:
    """Weigh each sample by its nearest coreset samples, or by the function learned on the coreset."""
    store, writer, images = context.store, context.writer, inputs["ingest"]
    coreset = store.read(inputs["select"], "coreset")
    weighted = store.read(inputs["reweight"], "coreset_weights")
    ids, labels = common.column(coreset, "id"), common.column(coreset, "label")
    assert np.array_equal(ids, common.column(weighted, "id"))
    reference = Reference(labels, common.column(weighted, "weight"))
    in_use = inputs["label"]
    parts = range(len(images.tables["images"]))
    settings.check_neighbors(len(ids))
    names, spreading = images.info["class_names"], settings.spreading
    asked_for = ("ingest", "label", "extract", "reweight")
    read = {name: inputs[name] for name in asked_for if name in inputs}
    work = Work(settings, store, read, writer, ids, reference, capacity.size(context).device)
    gpu = settings.asked is not None or made_for_gpus()
    pool = worker_pool(context, "broadcast", len(parts), gpu=gpu)
    find = None
    if spreading.k:
        asked = spreading.k + spreading.leaves_one_out
        most = context.limits["broadcast.max_index_bytes"]
        find = make_find(pool, store, inputs["extract"], ids, asked, most)
    weigh = functools.partial(Weigh, work, find)
    sums, unscaled, believed = ExactSums((2, len(names))), {}, {}
    for part, weighed in pool.map(weigh, parts, "broadcast: weights"):
        sums.add(_padded(weighed.sums, len(names)))
        unscaled[part], believed[part] = weighed.file, weighed.beliefs
    means = _means(settings, names, sums.total())
    scale = functools.partial(_Scale, work, means)
    scaled = dict(pool.map(scale, [(part, unscaled[part]) for part in parts], "broadcast: scale"))
    info: dict[str, Any] = {"raw_means": dict(zip(names, means.tolist(), strict=True))}
    learned_info = inputs["reweight"].info
    if "noise_rate" in learned_info:
        lows, highs = zip(*(scaled[part][1:] for part in parts), strict=True)
        given, total = "corrections" in in_use.info, in_use.rows("labels")
        info["found"] = _found(learned_info, total, min(lows), max(highs), given)
    tables = {"weights": [scaled[part][0] for part in parts]}
    beliefs = [file for part in parts if (file := believed[part])]
    if beliefs:
        tables["beliefs"] = beliefs
        info["targets"] = learned_info.get("targets", "soft")
    return writer.commit(tables, info)


def _found(
    learned: dict[str, Any], samples: int, low: float, high: float, corrected: bool
) -> list[str]:
    """What the user is told of the labels, in lines."""
    from cwerm.algorithms.labels.result import headline  # loads torch

    rate = learned["noise_rate"] if learned["open"] else None
    interval, undecided = tuple(learned["noise_rate_interval"]), learned["undecided"]
    line = headline(samples, rate, interval, (low, high), undecided)
    if corrected and rate is not None:
        line += "; that is before corrections"
    return [line, *learned["warnings"]]


def _padded(sums: np.ndarray, num_classes: int) -> np.ndarray:
    """A part's sums, also of classes that it does not have."""
    return np.pad(sums, [(0, 0), (0, num_classes - sums.shape[1])])


def _means(settings: BroadcastSettings, names: list[str], sums: np.ndarray) -> np.ndarray:
    """What each class's weights are divided by, float64 [classes].

    From the class sums and counts of weights, [2, classes].
    """
    total, count = sums
    if settings.spreading.balance == "none":
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


class _Scale:
    """Divides one part's weights by the mean of the data set or of their class, and publishes it."""

    def __init__(self, work: Work, means: np.ndarray) -> None:
        self.writer, self.means, self.behind = work.writer, means, WriteBehind()
        self.labels = LabelReader(work.store, work.inputs["label"])

    def __call__(self, work: tuple[int, File]) -> Later[tuple[File, float, float]]:
        part, file = work
        table = self.writer.read_unpublished(file)
        first = table.column("id")[0].as_py() if len(table) else 0
        removed = self.labels.rows(first, first + len(table)).removed
        means = self.means[common.column(table, "label")]
        weights = common.column(table, "weight").astype(np.float64) / means
        scaled: Any = pa.array(weights, pa.float32())
        column = table.schema.get_field_index("weight")
        table = table.set_column(column, table.schema.field("weight"), scaled)
        written = self.behind.write(self.writer.write_part, "weights", part, table)
        used = weights[~removed]
        low, high = float(used.min(initial=np.inf)), float(used.max(initial=0))
        return Later(lambda: (written.result(), low, high))


broadcast = Stage("broadcast", 7, needs, BroadcastSettings.of, _run)
