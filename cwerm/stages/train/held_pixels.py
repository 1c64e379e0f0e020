"""Decoded images in memory: once on a node, whatever the number of its ranks."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

import numpy as np

from cwerm.algorithms.training.ranks import Ranks
from cwerm.errors import UserError
from cwerm.stages.train.parts import StoredImages

__all__ = ["held_pixels"]


def held_pixels(images: StoredImages, ranks: Ranks, threads: int) -> np.ndarray:
    """All of the images, uint8 [n, 3, side, side].

    The ranks of a node decode a share each, into one file that is mapped into the memory of all of them. It
    has no name once they have it, so that nothing is left of it however they end.

    Raises:
        UserError: the disk has no room for that file.
    """
    shape = (len(images.ids), 3, images.side, images.side)
    if ranks.world_size == 1:
        alone = np.empty(shape, np.uint8)
        images.decode_into(alone, threads)
        return alone
    name = ranks.gather(uuid.uuid4().hex)[0]
    # nodes may share a folder for temporary files: each has its first rank in the name
    node = ranks.rank - ranks.local_rank
    path = Path(tempfile.gettempdir(), f"cwerm-pixels-{name}-{node}")
    problem = None
    if ranks.local_rank == 0:
        problem = _reserve(path, int(np.prod(shape)))
    try:
        problem = next(filter(None, ranks.gather(problem)), None)
        if problem is not None:
            raise UserError(problem)
        shared = np.memmap(path, np.uint8, "r+", shape=shape)
        images.decode_into(shared, threads, ranks.local_rank, ranks.local_size)
        ranks.gather(None)  # all have decoded their share
    finally:
        if ranks.local_rank == 0:
            path.unlink(missing_ok=True)
    return shared


def _reserve(path: Path, size: int) -> str | None:
    """Make the file with all of its bytes; what is in the way, if anything."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        finally:
            os.close(file)
    except OSError as error:
        path.unlink(missing_ok=True)
        return (
            f"train: the decoded images, {size / 2**30:.1f} GiB, can't be put into '{path.parent}' "
            f"({error.strerror}); let TMPDIR name a folder with room, or lower train.memory_bytes to "
            "read them part by part"
        )
    return None
