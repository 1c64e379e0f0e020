"""MNIST, and the IDX files that it and Fashion-MNIST come in."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cwerm.data.public.arrays import ArraySource, download
from cwerm.errors import UserError

PREFIX = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Mnist(ArraySource):
    """Handwritten digits, 60,000 and 10,000 images of 28 x 28 pixels."""

    dataset: ClassVar[str] = "MNIST"
    names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    num_images: ClassVar[dict[str, int]] = {"train": 60_000, "test": 10_000}
    side: ClassVar[int] = 28

    def folders(self) -> list[Path]:
        """Where the files may lie: ``root`` itself, or as torchvision keeps them below it."""
        root = Path(self.root)
        return [root, root / self.dataset / "raw"]

    def is_there(self) -> bool:
        """Whether one of the folders has the files."""
        return all(self._find(file_names(split)) for split in PREFIX)

    def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the split's IDX files, downloaded first where there are none."""
        names = file_names(split)
        files = self._find(names)
        if files is None:
            remedy = f"put {names[0]}.gz, {names[1]}.gz and so on there"
            download(self.dataset, f"{self.dataset}/raw", Path(self.root), remedy)
            files = self._find(names)
            assert files is not None, "torchvision keeps the files as listed"
        images, labels = (read_idx(file) for file in files)
        return images, labels.astype(np.int64)

    def _find(self, names: list[str]) -> list[Path] | None:
        for folder in self.folders():
            for suffix in ("", ".gz"):
                files = [folder / (name + suffix) for name in names]
                if all(file.is_file() for file in files):
                    return files
        return None

    def class_names(self) -> list[str]:
        """The names of labels 0..9."""
        return list(self.names)


def file_names(split: str) -> list[str]:
    """The files of a split: images, then labels."""
    return [f"{PREFIX[split]}-images-idx3-ubyte", f"{PREFIX[split]}-labels-idx1-ubyte"]


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, gzipped or not.

    Raises:
        UserError: the file is damaged or something else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"data.root: '{path}' is damaged ({error}); fetch it again") from error
    dimensions = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    start = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:start], dtype=">u4").tolist()
    if not dimensions or len(data) != start + math.prod(shape):
        raise UserError(f"data.root: '{path}' is not a whole IDX file; fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
