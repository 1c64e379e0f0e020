"""CIFAR-10 and CIFAR-100, read by torchvision."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cwerm.data.arrays import ArraySource, download
from cwerm.errors import UserError


@dataclass(frozen=True)
class Cifar10(ArraySource):
    """Photographs of 10 classes, 50,000 and 10,000 images of 32 x 32 pixels."""

    dataset: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"

    def load(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the split, downloaded first where it is not there."""
        data = self._open(split)
        return data.data, np.asarray(data.targets, dtype=np.int64)

    def _open(self, split: str) -> Any:
        from torchvision import datasets

        root = Path(self.root)
        if not (root / self.folder).is_dir():
            download(self.dataset, self.folder, root, f"put the folder {self.folder} there")
        try:
            with warnings.catch_warnings():
                # The files are pickles of an old NumPy, which newer ones remark on.
                warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
                return getattr(datasets, self.dataset)(self.root, train=split == "train")
        except RuntimeError as error:
            raise UserError(
                f"data.root: '{root / self.folder}' is incomplete or damaged; "
                "remove it to download it again, or replace it"
            ) from error

    def class_names(self) -> list[str]:
        """The names in the data set's own files."""
        return list(self._open("test").classes)


@dataclass(frozen=True)
class Cifar100(Cifar10):
    """Photographs of 100 (fine) classes, otherwise as CIFAR-10."""

    dataset: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
