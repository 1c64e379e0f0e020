"""The random resized crop: a part of the image, of random size, shape and place, enlarged to the whole.

Source: Szegedy et al., "Going deeper with convolutions" (CVPR 2015), with torchvision's figures.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from cwerm.algorithms.training import erm

__all__ = ["crop_windows", "resized_crop"]

AREA = (0.08, 1.0)  # share of the image's
RATIO = (3 / 4, 4 / 3)  # width to height
TRIES = 10


def crop_windows(
    num_samples: int, seed: int, epoch: int, height: int, width: int
) -> Int[np.ndarray, "num_samples 4"]:
    """Top, left, height and width of each sample's window.

    Area and logarithm of the ratio are uniform; of ten tries the first that fits counts, and where none does,
    the largest window in the middle whose ratio is allowed.
    """
    generator = erm.generator_of(seed, epoch, erm.RESIZED_CROP)
    image = np.array([height, width])
    logarithms = math.log(RATIO[0]), math.log(RATIO[1])
    whole = np.clip(width / height, *RATIO)
    largest = min(height, round(width / whole)), min(width, round(height * whole))
    sides = np.tile(largest, (num_samples, 1))
    corners = (image - sides) // 2
    without = np.ones(num_samples, dtype=bool)
    for _ in range(TRIES):
        area = generator.uniform(*AREA, num_samples) * height * width
        ratio = np.exp(generator.uniform(*logarithms, num_samples))
        place = generator.random((num_samples, 2))
        tried = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=1))).astype(int)
        fits = without & (tried > 0).all(1) & (tried <= image).all(1)
        sides[fits] = tried[fits]
        corners[fits] = place[fits] * (image - tried[fits] + 1)
        without &= ~fits
    return np.concatenate([corners, sides], axis=1)


def resized_crop(
    images: UInt8[Tensor, "batch channels height width"], windows: Int[Tensor, "batch 4"]
) -> UInt8[Tensor, "batch channels height width"]:
    """Enlarge the window of each image to the whole, bilinearly, as torchvision does one at a time."""
    tops, lefts, heights, widths = windows.unbind(1)
    tall = _enlarged(images, 2, tops, heights)
    return _enlarged(tall, 3, lefts, widths).round_().to(torch.uint8)


def _enlarged(
    images: Shaped[Tensor, "batch channels height width"],
    dim: int,
    firsts: Int[Tensor, " batch"],
    lengths: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Stretch a part of one dimension, 2 or 3, over all of it; each pixel is made by itself."""
    side = images.shape[dim]
    grid = torch.arange(side, device=images.device)
    seen = (grid + 0.5) * (lengths[:, None] / side) - 0.5
    seen = seen.clamp(min=0).minimum(lengths[:, None] - 1)
    before = seen.floor()
    after = (before + 1).minimum(lengths[:, None] - 1)
    shape = (-1, 1, side, 1) if dim == 2 else (-1, 1, 1, side)
    first, second = (
        images.gather(dim, (firsts[:, None] + place.long()).view(shape).expand_as(images)).float()
        for place in (before, after)
    )
    return first.lerp_(second, (seen - before).view(shape))
