"""Fashion-MNIST, also from Debian's package ``dataset-fashion-mnist``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cwerm.data.public.mnist import Mnist

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class FashionMnist(Mnist):
    """Clothes, 60,000 and 10,000 images of 28 x 28 pixels."""

    dataset: ClassVar[str] = "FashionMNIST"
    names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def folders(self) -> list[Path]:
        """As for MNIST, then Debian's folder."""
        return [*super().folders(), DEBIAN_FOLDER]
