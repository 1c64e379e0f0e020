"""The training rows that no draw has taken yet, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cwerm.algorithms.class_counts import balanced_counts, draw_in_class
from cwerm.algorithms.noise.corrupt import draw_tail, tail_counts
from cwerm.errors import blame
from cwerm.stages.ingest.rows.bits import Bits
from cwerm.stages.ingest.rows.held import HeldRows
from cwerm.stages.ingest.settings import IngestSettings


class LeftRows(NamedTuple):
    """Some of them, ascending, [n] each."""

    rows: np.ndarray
    """int64."""
    codes: np.ndarray
    """Their classes, int32."""
    pixels: np.ndarray
    """Digests of their images, bytes [n, 16]."""


class Training:
    """What is left to train on: the rows, how many of each class, and marks on those that are taken."""

    def __init__(self, rows: HeldRows, stop: int, code_of: np.ndarray, sizes: np.ndarray) -> None:
        """Of the rows before ``stop``, with the classes of labels and the readable rows of each class."""
        self.held, self.stop, self.code_of = rows, stop, code_of
        self.sizes = sizes
        """int64 [classes]."""
        self.taken = Bits(rows.total)

    def blocks(self) -> Iterator[LeftRows]:
        """Those that are readable and not taken."""
        for start, label, pixels in self.held.keys(self.stop):
            left = np.flatnonzero((label >= 0) & ~self.taken.between(start, start + len(label)))
            yield LeftRows(start + left, self.code_of[label[left]], pixels[left])

    def thin_out(self, settings: IngestSettings, names: list[str]) -> None:
        """Take what ``limit`` and ``imbalance`` leave out; of each class by places within it.

        Raises:
            UserError: too few images of a class for the limit or the tail.
        """
        found = _places(settings, names, self.sizes)
        if found is None:
            return
        kept, sizes = found
        first = np.cumsum(self.sizes) - self.sizes
        for rows, codes, _ in self.blocks():
            order = np.argsort(codes, kind="stable")
            of_class = np.bincount(codes, minlength=len(sizes))
            place = np.arange(len(rows)) + np.repeat(
                first - (np.cumsum(of_class) - of_class), of_class
            )
            self.taken.mark(rows[order[~kept.at(place)]])
            first += of_class
        self.sizes = sizes


def _places(
    settings: IngestSettings, names: list[str], sizes: np.ndarray
) -> tuple[Bits, np.ndarray] | None:
    """Marks on the places of what is kept, if rows were sorted by class, and how many of each class.

    None where everything is.
    """
    counts, total = sizes, int(sizes.sum())
    limited = settings.limit is not None and settings.limit < total
    if settings.limit is not None and limited:
        with blame("data.limit", names):
            occurring = np.flatnonzero(sizes)
            counts = np.zeros_like(sizes)
            counts[occurring] = balanced_counts(sizes[occurring], settings.limit, occurring)
    of_limit = counts
    if settings.imbalance is not None:
        with blame("data.imbalance", names):
            tail = tail_counts(np.trim_zeros(counts, "b"), settings.imbalance)
        counts = np.zeros_like(sizes)
        counts[: len(tail)] = tail
    elif not limited:
        return None
    kept, start = Bits(total), 0
    for label, (size, drawn, count) in enumerate(
        zip(sizes.tolist(), of_limit.tolist(), counts.tolist(), strict=True)
    ):
        places = np.arange(size)
        if limited:
            places = np.sort(draw_in_class(label, size, drawn, settings.split_seed))
        if settings.imbalance is not None:
            places = places[draw_tail(label, len(places), count, settings.split_seed)]
        kept.mark(start + places)
        start += size
    return kept, counts
