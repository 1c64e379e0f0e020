"""One bit a row: all that is held of every row at once."""

from __future__ import annotations

import numpy as np


class Bits:
    """Marks on rows 0 to n - 1, an eighth of a byte each."""

    def __init__(self, rows: int) -> None:
        self._bytes = np.zeros(-(-rows // 8), np.uint8)

    def mark(self, rows: np.ndarray) -> None:
        """Mark these rows, int64 [k]."""
        np.bitwise_or.at(self._bytes, rows >> 3, _bit(rows))

    def unmark(self, rows: np.ndarray) -> None:
        """Take the marks off these rows, int64 [k]."""
        np.bitwise_and.at(self._bytes, rows >> 3, ~_bit(rows))

    def add(self, other: Bits) -> None:
        """Mark what the other has marked, of as many rows."""
        self._bytes |= other._bytes

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows, int64 [k], are marked; bool [k]."""
        return (self._bytes[rows >> 3] & _bit(rows)) > 0

    def between(self, start: int, stop: int) -> np.ndarray:
        """Which rows from ``start`` to ``stop`` are marked; bool [stop - start]."""
        held = np.unpackbits(self._bytes[start >> 3 : (stop + 7) >> 3], bitorder="little")
        first = start & 7
        return held[first : first + stop - start].astype(bool)


def _bit(rows: np.ndarray) -> np.ndarray:
    return np.left_shift(1, rows & 7).astype(np.uint8)
