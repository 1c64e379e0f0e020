"""Exact class medians per feature dimension, from counts that parts of the data can add up.

A radix selection: features become unsigned integers of the same order, and every pass over the data
counts one byte of them, from the highest down, among the values that still may be a median. The two
middle ranks are followed apart, as they differ in classes of even size. Two passes settle float16,
four float32, in memory that does not depend on the number of rows:

    state = MedianState.start(num_classes, num_features, "float16", class_counts)
    while not state.done:
        state = state.advance(sum(state.count(features, labels) for features, labels in parts))
    medians = state.medians()
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer, UInt

from cwerm.algorithms.inputs import check_finite

__all__ = ["MedianState", "dimension_blocks"]

BYTE_VALUES = 256
BITS = {"float16": 16, "float32": 32}
CHUNK_ELEMENTS = 1 << 20  # features counted at once: bounds the memory of the index arrays


def dimension_blocks(num_classes: int, num_features: int, max_bytes: int) -> list[slice]:
    """Slices of the feature dimensions, each with one array of counts of at most `max_bytes`.

    Raises ValueError if the counts of a single dimension are larger.
    """
    bytes_a_dimension = 2 * num_classes * BYTE_VALUES * np.dtype(np.uint32).itemsize
    width = max_bytes // bytes_a_dimension
    if width == 0:
        raise ValueError(
            f"median counts of {num_classes} classes need at least {bytes_a_dimension} bytes, "
            f"got {max_bytes}; raise the memory limit"
        )
    starts = range(0, num_features, width)
    return [slice(start, min(start + width, num_features)) for start in starts]


def _ordered_keys(features: Float[np.ndarray, "b d"]) -> UInt[np.ndarray, "b d"]:
    """Unsigned integers in the order of the numbers, both zeros alike."""
    bits = 8 * features.dtype.itemsize
    unsigned = np.dtype(f"uint{bits}").type
    sign = unsigned(1 << (bits - 1))
    keys = np.ascontiguousarray(features).view(unsigned)
    keys = np.where(keys == sign, unsigned(0), keys)
    return np.where(keys & sign, ~keys, keys | sign)


def _numbers(keys: UInt[np.ndarray, "*shape"], dtype: str) -> Float[np.ndarray, "*shape"]:
    """The inverse of `_ordered_keys`, in float64."""
    bits = BITS[dtype]
    unsigned = np.dtype(f"uint{bits}").type
    keys = keys.astype(unsigned)
    sign = unsigned(1 << (bits - 1))
    return np.where(keys & sign, keys ^ sign, ~keys).view(dtype).astype(np.float64)


@dataclass(frozen=True)
class MedianState:
    """What is known of the medians after some passes; plain arrays, to be sent to workers.

    The first axis of `prefixes` and `ranks` is the middle rank, lower and upper: the bits known so
    far, and the rank among the values with those bits.
    """

    dtype: str
    passes: int
    prefixes: UInt[np.ndarray, "2 classes d"]
    ranks: Int[np.ndarray, "2 classes d"]

    @classmethod
    def start(
        cls,
        num_classes: int,
        num_features: int,
        dtype: str,
        class_counts: Integer[np.ndarray, "classes"],
    ) -> MedianState:
        """The state before the first pass, for features of `dtype`; every class must have rows."""
        if dtype not in BITS:
            raise ValueError(f"medians need float16 or float32 features, got {dtype}; convert them")
        sizes = class_counts.astype(np.int64)
        assert sizes.shape == (num_classes,)
        assert ((sizes > 0) & (sizes < 1 << 32)).all()
        middle = np.stack([(sizes - 1) // 2, sizes // 2])
        shape = (2, num_classes, num_features)
        ranks = np.broadcast_to(middle[:, :, None], shape).copy()
        return cls(dtype, 0, np.zeros(shape, np.uint32), ranks)

    @property
    def done(self) -> bool:
        """Whether the medians are known."""
        return 8 * self.passes == BITS[self.dtype]

    def _cells(self) -> tuple[Int[np.ndarray, "2 classes d"], int]:
        """Row of the counts for each middle rank, the same where prefixes agree; number of rows."""
        lower, upper = self.prefixes
        cells = np.arange(lower.size).reshape(lower.shape)
        split = lower != upper
        other = cells.copy()
        other[split] = lower.size + np.arange(np.count_nonzero(split))
        return np.stack([cells, other]), lower.size + int(np.count_nonzero(split))

    def count(
        self, features: Float[np.ndarray, "b d"], labels: Integer[np.ndarray, "b"]
    ) -> UInt[np.ndarray, "cells 256"]:
        """Counts of the next byte in one part of the data; the sum of all advances the state.

        Raises ValueError on NaN, infinity and fill values.
        """
        assert not self.done
        assert features.dtype == self.dtype
        check_finite(features)
        cells, num_cells = self._cells()
        counts = np.zeros(num_cells * BYTE_VALUES, np.uint32)
        rows = max(1, CHUNK_ELEMENTS // features.shape[1])
        for start in range(0, len(labels), rows):
            chunk = slice(start, start + rows)
            self._count_chunk(_ordered_keys(features[chunk]), labels[chunk], cells, counts)
        return counts.reshape(num_cells, BYTE_VALUES)

    def _count_chunk(
        self,
        keys: UInt[np.ndarray, "b d"],
        labels: Integer[np.ndarray, "b"],
        cells: Int[np.ndarray, "2 classes d"],
        counts: UInt[np.ndarray, "bins"],
    ) -> None:
        shift = BITS[self.dtype] - 8 * (self.passes + 1)
        tops = keys.astype(np.uint32) >> np.uint32(shift)
        one = counts.dtype.type(1)
        for rank in range(2):
            # the upper rank has counts of its own only where its prefix differs
            wanted = np.ones_like(cells[0], bool) if rank == 0 else cells[1] != cells[0]
            match = wanted[labels] & (tops >> np.uint32(8) == self.prefixes[rank][labels])
            bins = cells[rank][labels][match] * BYTE_VALUES + (tops[match] & np.uint32(0xFF))
            np.add.at(counts, bins, one)

    def advance(self, counts: UInt[np.ndarray, "cells 256"]) -> MedianState:
        """The state after one more byte, from the counts of all parts added together."""
        cells, num_cells = self._cells()
        assert counts.shape == (num_cells, BYTE_VALUES)
        prefixes, ranks = np.empty_like(self.prefixes), np.empty_like(self.ranks)
        for rank, label in np.ndindex(
            self.ranks.shape[:2]
        ):  # class by class, to keep the copies small
            cumulative = np.cumsum(counts[cells[rank, label]], axis=1, dtype=np.int64)
            wanted = self.ranks[rank, label]
            assert (wanted < cumulative[:, -1]).all(), "the counts of some part are missing"
            byte = np.count_nonzero(cumulative <= wanted[:, None], axis=1)
            below = np.where(byte > 0, cumulative[np.arange(len(byte)), byte - 1], 0)
            ranks[rank, label] = wanted - below
            prefixes[rank, label] = self.prefixes[rank, label] << np.uint32(8) | byte.astype(
                np.uint32
            )
        return MedianState(self.dtype, self.passes + 1, prefixes, ranks)

    def medians(self) -> Float[np.ndarray, "classes d"]:
        """float64 medians: the middle value of a class, or the mean of the two middle values."""
        assert self.done
        lower, upper = _numbers(self.prefixes, self.dtype)
        return (lower + upper) / 2
