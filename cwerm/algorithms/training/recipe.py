"""How a classifier is trained: everything of it that is not data, model or hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Loss", "Precision", "Recipe"]

Precision = Literal["float32", "bfloat16"]
Loss = Literal["cross_entropy", "focal", "gce", "small_loss"]


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with a cosine from `lr` to 0, over `epochs` passes.

    `batch_size` is that of all ranks together. Images are padded by `crop_padding` pixels and cropped at
    random, and mirrored at random where `flip`. The model computes in `precision`; its parameters, the loss
    and the optimizer are float32. `loss` and its settings are those of `erm.weighted_loss`; `small_loss`
    leaves `wrong_share` of each batch out. Order, augmentation and dropout follow from `seed`.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    crop_padding: int = 0
    flip: bool = False
    loss: Loss = "cross_entropy"
    focal_gamma: float = 2.0
    gce_q: float = 0.7
    wrong_share: float = 0.0
    precision: Precision = "float32"
    seed: int = 0
