"""How a classifier is trained: everything of it that is not data, model or hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Augment", "Crop", "Loss", "Optimizer", "Precision", "Recipe"]

Optimizer = Literal["sgd", "adamw"]
Crop = Literal["padded", "resized"]
Augment = Literal["none", "trivial", "rand"]
Precision = Literal["float32", "bfloat16"]
Loss = Literal["cross_entropy", "focal", "gce", "small_loss"]


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent, or AdamW, with a cosine from `lr` to 0, over `epochs` passes.

    The rate rises in a straight line over the first `warmup_epochs`; `max_steps`, if they come first, end the
    training, and the cosine. `batch_size` is that of all ranks together, in `accumulate` parts one after the
    other on each. `weight_decay` is that of all parameters, of AdamW of matrices and kernels alone. The
    last layer learns at `head_lr_factor` times the rate. Gradients longer than `clip_gradient_norm` are
    cut to it. With `ema`, the model that counts is the moving average of that decay.

    Images are padded by `crop_padding` pixels and cropped at random, or where `crop` is `resized` a part of
    random size is enlarged; mirrored at random where `flip`; then changed as `augment` says. `mixup` and
    `cutmix` are the parameters of the beta distributions from which shares are drawn, 0 for none.

    The model computes in `precision`; its parameters, the loss and the optimizer are float32. `loss` and its
    settings are those of `erm.weighted_loss`; `small_loss` leaves `wrong_share` of each batch out. Order,
    augmentation and dropout follow from `seed`.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    betas: Sequence[float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    warmup_epochs: float = 0.0
    max_steps: int | None = None
    accumulate: int = 1
    clip_gradient_norm: float | None = None
    ema: float | None = None
    head_lr_factor: float = 1.0
    crop: Crop = "padded"
    crop_padding: int = 0
    flip: bool = False
    augment: Augment = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    loss: Loss = "cross_entropy"
    focal_gamma: float = 2.0
    gce_q: float = 0.7
    wrong_share: float = 0.0
    precision: Precision = "float32"
    seed: int = 0
