"""Public data sets that fit in memory as arrays, fetched by torchvision where they are missing."""

from __future__ import annotations

import hashlib
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from cwerm.data.source import Chunk, Sample, Source
from cwerm.errors import UserError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class ArraySource(Source):
    """Images uint8 [n, h, w] or [n, h, w, 3] and labels int64 [n] for ``train`` and ``test``.

    Attributes:
        root: the folder (``data.root``) that holds the data set, or that it is downloaded to.
    """

    root: str
    num_images: ClassVar[dict[str, int]]
    """Of each split, as its publisher says."""
    side: ClassVar[int]
    """Of the images, in pixels."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether `load` would find it on this machine, and download nothing."""

    @abstractmethod
    def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a split, from disk.

        Raises:
            UserError: they are not there and can't be downloaded, or are damaged.
        """

    @abstractmethod
    def class_names(self) -> list[str]:
        """The data set's own names."""

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a split, loaded once a process."""
        return _load_once(self, split)

    def fingerprint(self) -> str:
        """A hash of all images and labels, wherever they lie."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for array in self.arrays(split):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Nothing to do: they are in memory."""

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of up to ``rows`` images in the data set's order."""
        if split not in SPLITS:
            return []
        count = len(self.arrays(split)[1])
        return [Chunk(split, at, min(rows, count - at)) for at in range(0, count, rows)]

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's images as arrays."""
        images, labels = self.arrays(chunk.split)
        for index in range(chunk.start, chunk.start + chunk.size):
            yield Sample(images[index], int(labels[index]), f"{chunk.split}-images[{index}]")


@lru_cache(maxsize=2)
def _load_once(source: ArraySource, split: str) -> tuple[np.ndarray, np.ndarray]:
    return source.load(split)


def download(dataset: str, folder: str, root: Path, remedy: str) -> None:
    """Let torchvision download ``dataset`` to ``root/folder``, whole or not at all.

    Raises:
        UserError: the download failed; names ``data.root`` and the remedy.
    """
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
            getattr(datasets, dataset)(partial, download=True)
            target = root / folder
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                (Path(partial) / folder).rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"data.root: {dataset} is not in '{root}' and its download failed ({reason}); {remedy}"
        ) from error
