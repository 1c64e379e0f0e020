"""The images of the store that a training reads: some rows of the parts of a table."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from cwerm.data.images import decode
from cwerm.stages import pixels
from cwerm.store.artifacts import Artifact, ArtifactStore

READ_AHEAD = 4  # parts, where all images are held
SAMPLED_PARTS, SAMPLED_OF_PART = (
    32,
    128,
)  # images of which channels are measured where not all are held


class StoredImages:
    """Some images of a table, numbered from 0 in the order of their ids, as `streaming.Images` are."""

    def __init__(
        self,
        store: ArtifactStore,
        images: Artifact,
        table: str,
        ids: np.ndarray,
        side: int,
    ) -> None:
        self.store, self.images, self.table = store, images, table
        self.ids, self.side = ids, side
        ends = np.cumsum([part.rows for part in images.tables[table]])
        bounds = np.searchsorted(ids, ends)
        self.sizes = np.diff(bounds, prepend=0)
        self._first_ids = np.concatenate([[0], ends[:-1]])

    def read(self, part: int, images: np.ndarray) -> list[Any]:
        """Some of a part's images as they are stored."""
        table = self.store.read_part(self.images, self.table, part, ["image"], hold=False)
        column = table.column("image").combine_chunks()
        rows = self.ids[images] - self._first_ids[part]
        if hasattr(column, "to_numpy_ndarray"):
            # copies: a view would keep the whole part in memory
            return [row.copy() for row in column.to_numpy_ndarray()[rows]]
        return column.take(rows).to_pylist()

    def decode(self, cells: Sequence[Any]) -> np.ndarray:
        """Their pixels, uint8 [n, 3, side, side]."""
        found = np.empty((len(cells), 3, self.side, self.side), np.uint8)
        for target, cell in zip(found, cells, strict=True):
            target[:] = pixels.to_square(decode(cell), self.side).transpose(2, 0, 1)
        return found

    def pieces(self) -> Iterator[tuple[int, slice]]:
        """Each part that has any of the images, and which of them."""
        ends = np.cumsum(self.sizes).tolist()
        for part, (size, end) in enumerate(zip(self.sizes.tolist(), ends, strict=True)):
            if size:
                yield part, slice(end - size, end)

    def decode_into(
        self, target: np.ndarray, threads: int, rank: int = 0, world_size: int = 1
    ) -> None:
        """Decode this rank's share of the parts to their places in uint8 [n, 3, side, side]."""
        own = [*self.pieces()][rank::world_size]
        with (
            ThreadPoolExecutor(threads, "decode") as pool,
            ThreadPoolExecutor(READ_AHEAD, "read") as readers,
        ):
            waiting = deque[Future[list[Any]]]()
            asked = iter(own)
            for _, place in own:
                for part, its in itertools.islice(asked, READ_AHEAD - len(waiting)):
                    waiting.append(readers.submit(self.read, part, np.arange(its.start, its.stop)))
                cells = waiting.popleft().result()
                ends = [place.start + len(cells) * i // threads for i in range(threads + 1)]
                done = [
                    pool.submit(self._decode_piece, target[a:b], cells[a - place.start :])
                    for a, b in itertools.pairwise(ends)
                ]
                for piece in done:
                    piece.result()

    def _decode_piece(self, target: np.ndarray, cells: Sequence[Any]) -> None:
        target[:] = self.decode(cells[: len(target)])

    def channel_counts(self, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """How often each value comes in each channel, int64 [3, 256]; this rank's share of it.

        Of all images where there are few, else of some of parts from everywhere.
        """
        places = [*self.pieces()]
        step = max(1, len(places) // SAMPLED_PARTS)
        counts = np.zeros((3, 256), np.int64)
        for part, place in places[::step][rank::world_size]:
            number = place.stop - place.start
            chosen = np.arange(place.start, place.stop, max(1, number // SAMPLED_OF_PART))
            found = self.decode(self.read(part, chosen))
            counts += [np.bincount(found[:, c].ravel(), minlength=256) for c in range(3)]
        return counts
