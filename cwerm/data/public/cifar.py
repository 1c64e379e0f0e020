"""CIFAR-10 and CIFAR-100 from their publisher's files, fetched by torchvision.

The files are pickles. They are read only with the checksums that torchvision knows, and may then make
nothing but arrays and plain values.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cwerm.data.public.arrays import ArraySource, download
from cwerm.errors import UserError

# What an array's pickle calls, under the names of old and new NumPy.
_ARRAY_PARTS = {
    (f"numpy{core}", name)
    for core, name in [
        ("", "ndarray"),
        ("", "dtype"),
        (".core.multiarray", "_reconstruct"),
        ("._core.multiarray", "_reconstruct"),
    ]
}


@dataclass(frozen=True)
class Cifar10(ArraySource):
    """Photographs of 10 classes, 50,000 and 10,000 images of 32 x 32 pixels."""

    dataset: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    label_key: ClassVar[str] = "labels"
    num_images: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    side: ClassVar[int] = 32

    def is_there(self) -> bool:
        """Whether its publisher's folder is there."""
        return (Path(self.root) / self.folder).is_dir()

    def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the split, downloaded first where it is not there."""
        files = [self._read(*known) for known in getattr(self._known(), f"{split}_list")]
        pixels = np.concatenate([file["data"] for file in files])
        labels = [label for file in files for label in file[self.label_key]]
        images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, np.asarray(labels, dtype=np.int64)

    def class_names(self) -> list[str]:
        """The names in the data set's own files."""
        meta = self._known().meta
        return list(self._read(meta["filename"], meta["md5"])[meta["key"]])

    def _known(self) -> Any:
        """What torchvision knows of the files: their names and checksums."""
        from torchvision import datasets

        return getattr(datasets, self.dataset)

    def _read(self, name: str, md5: str) -> dict[str, Any]:
        root = Path(self.root)
        if not (root / self.folder).is_dir():
            download(self.dataset, self.folder, root, f"put the folder {self.folder} there")
        try:
            data = (root / self.folder / name).read_bytes()
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
                raise ValueError(f"{name} has another checksum")
            return _Arrays(io.BytesIO(data), encoding="latin1").load()
        except Exception as error:  # whatever a pickle of something else raises
            raise UserError(
                f"data.root: '{root / self.folder}' is incomplete or damaged; "
                "remove it to download it again, or replace it"
            ) from error


@dataclass(frozen=True)
class Cifar100(Cifar10):
    """Photographs of 100 (fine) classes, otherwise as CIFAR-10."""

    dataset: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    label_key: ClassVar[str] = "fine_labels"


class _Arrays(pickle.Unpickler):
    """Makes arrays and plain values, and nothing else."""

    def load(self) -> Any:
        with warnings.catch_warnings():
            # The files are pickles of an old NumPy, which newer ones remark on.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")
        return super().find_class(module, name)
