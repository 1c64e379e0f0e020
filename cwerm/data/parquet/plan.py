"""Into which parts the rows of a Parquet file go, and which of them are read at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cwerm.data import source

# A row group of many parts is read from its start for each chunk, so it makes few chunks.
CHUNKS_A_GROUP, PARTS_A_CHUNK = 4, 16


def plan(group_rows: Sequence[int], group_bytes: Sequence[int], rows: int) -> list[tuple[int, ...]]:
    """Rows of each part of a file, by chunk.

    Parts are runs of whole row groups, and pieces of larger ones. What is cut out of a row group is
    read as one chunk, or as very few.
    """
    return [
        chunk for parts in _stretches(group_rows, group_bytes, rows) for chunk in _divide(parts)
    ]


def _cut(group: int, rows: int) -> list[int]:
    """Sizes of the near-equal pieces, of at most ``rows`` rows, of a row group."""
    pieces = -(-group // rows)
    return [(group * (i + 1)) // pieces - (group * i) // pieces for i in range(pieces)]


def _stretches(group_rows: Sequence[int], group_bytes: Sequence[int], rows: int) -> list[list[int]]:
    """Rows of the parts of a file, in lists: what shares a row group stands in one list."""
    stretches: list[list[int]] = []
    size, held, shares = 0, 0.0, False  # of the part in hand; whether it begins within a row group

    def close(inside: bool) -> None:
        nonlocal size, held, shares
        if size:
            stretches.append([size]) if not shares else stretches[-1].append(size)
        size, held, shares = 0, 0.0, inside

    for group, bytes_ in zip(group_rows, group_bytes, strict=True):
        a_row = bytes_ / max(1, group)
        fitting = max(1, int(source.PART_BYTES / a_row)) if a_row else rows
        for number, piece in enumerate(_cut(group, min(rows, fitting))):
            if size + piece > rows or held + piece * a_row > source.PART_BYTES:
                close(inside=number > 0)
            size, held = size + piece, held + piece * a_row
    close(inside=False)
    return stretches


def _divide(parts: list[int]) -> list[tuple[int, ...]]:
    """The parts of a stretch by chunk: enough chunks for some workers to share a large row group."""
    count = min(CHUNKS_A_GROUP, -(-len(parts) // PARTS_A_CHUNK))
    ends = np.cumsum([0, *_cut(len(parts), -(-len(parts) // count))])
    return [tuple(parts[a:b]) for a, b in pairwise(ends)]
