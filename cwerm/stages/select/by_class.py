"""Class medians, distances to them, and what a method chooses by them, one class after the other.

Where all features fit one bucket a worker reads them. Else the rows are shuffled: every group of parts is
sorted by class and written in pieces, one for each bucket, which is a range of classes; then every bucket
is read by one worker. A class that is larger than a bucket is alone, and written in blocks of columns, of
which its worker holds one at a time. Of a sample nothing comes back but what was chosen.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np

from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.select.choosing import Choice, Found
from cwerm.stages.select.shuffle import Bucket, Cut, Forget, Rows, Shuffled, Whole
from cwerm.stages.stage import Context
from cwerm.store.artifacts import Artifact

BUCKET_BYTES = 2**27  # of features, that a worker holds at once
PIECE_BYTES = (
    2**19
)  # of many features, buckets are larger, so that pieces are not smaller than this


def look_by_class(
    context: Context,
    features: Artifact,
    labels: Artifact,
    left_out: np.ndarray,
    sizes: np.ndarray,
    choice: Choice | None,
) -> Found:
    """What is chosen among the samples, or all of them, by id.

    Args:
        context: how the work is done.
        features: the artifact that holds them.
        labels: those in use.
        left_out: ids of samples that don't count, int64, ascending.
        sizes: of each class, the samples that count, int64 [classes].
        choice: how to choose.
    """
    counts = [part.rows for part in features.tables["features"]]
    kind = np.dtype(common.feature_type(context.store, features))
    dimensions = common.dimensions(context.store, features)
    row_bytes = dimensions * kind.itemsize
    total = sum(counts) * row_bytes
    most = max(BUCKET_BYTES, math.isqrt(total * PIECE_BYTES))
    rows, writer = Rows(context.store, features, labels, left_out), context.writer
    if total <= most:
        pool = worker_pool(context, "select", 1)
        whole = functools.partial(Whole, choice, rows)
        ((_, found),) = pool.map(whole, [range(len(counts))], "select")
        return _by_id([found])
    buckets = _buckets(sizes, dimensions, row_bytes, most)
    groups = _groups(counts, max(1, most // 2 // row_bytes))
    pool = worker_pool(context, "select", max(len(groups), len(buckets)))
    cut = functools.partial(Cut, rows, writer, buckets)
    cuts: dict[int, Any] = dict(pool.map(cut, [*enumerate(groups)], "select: by class"))
    work = [
        (bucket, [files for group in range(len(groups)) if (files := cuts[group][bucket.number])])
        for bucket in buckets
    ]
    del cuts
    shuffled = functools.partial(Shuffled, choice, writer)
    every = [found for _, found in pool.map(shuffled, work, "select: classes")]
    for _ in pool.map(functools.partial(Forget, writer), work, "select: clean up", bar=False):
        pass
    return _by_id(every)


def _by_id(found: list[Found]) -> Found:
    ids, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(ids)
    return ids[order], distances[order]


def _buckets(sizes: np.ndarray, dimensions: int, row_bytes: int, most: int) -> list[Bucket]:
    """Ranges of classes of at most so many bytes, without those that have no samples."""
    found: list[Bucket] = []
    for classes in _packed((sizes * row_bytes).tolist(), most):
        held = int(sizes[classes.start : classes.stop].sum()) * row_bytes
        if held:
            blocks = min(dimensions, -(-held // most))
            edges = np.linspace(0, dimensions, blocks + 1).astype(int).tolist()
            found.append(Bucket(len(found), classes, [slice(*edge) for edge in pairwise(edges)]))
    return found


def _groups(counts: list[int], most: int) -> list[range]:
    """Neighbouring parts of at most so many rows."""
    return _packed(counts, most)


def _packed(sizes: list[int], most: int) -> list[range]:
    """Neighbours of at most so much together; what is larger is alone."""
    starts, held = [0], 0
    for number, size in enumerate(sizes):
        if held and held + size > most:
            starts.append(number)
            held = 0
        held += size
    return [range(*edge) for edge in pairwise([*starts, len(sizes)])]
