"""What a backbone expects of an image, and images made so.

For small images this needs PIL and NumPy alone, so that processes that only decode start fast and stay small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["RESAMPLING", "InputSpec", "preprocess", "resize_window"]

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

LARGE = 200 * 200  # pixels from which it pays to load torch
OF_TORCH = ("bilinear", "bicubic")
LARGEST_WHOLE = 16  # times the part that is used: images up to there are resized whole

Window = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class InputSpec:
    """What a backbone expects of an image, in timm's terms; `size` is a square's side in pixels."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str


def preprocess(image: Image.Image, spec: InputSpec) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as timm evaluates it: resized to size / crop_pct, its centre cut to size."""
    assert image.mode == "RGB"
    size, window, (left, top) = _layout(image.width, image.height, spec)
    pixels = resize_window(image, size, window, spec.interpolation)
    if pixels.shape[:2] == (spec.size, spec.size):
        return np.require(pixels, requirements=["C", "W"])
    canvas = np.empty((spec.size, spec.size, 3), np.uint8)
    canvas[:] = [round(255 * mean) for mean in spec.mean]
    canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return canvas


def _layout(
    width: int, height: int, spec: InputSpec
) -> tuple[tuple[int, int], Window, tuple[int, int]]:
    """The size to scale an image to, the window of it to keep, and where on the canvas that goes."""
    width, height = _resized(width, height, spec)
    left, top = _offset(width, spec.size), _offset(height, spec.size)
    end = min(width, spec.size - left), min(height, spec.size - top)
    window = (max(0, -left), max(0, -top), *end)
    return (width, height), window, (max(0, left), max(0, top))


def resize_window(
    image: Image.Image, size: tuple[int, int], window: Window, interpolation: str
) -> UInt8[np.ndarray, "height width 3"]:
    """The part `window` of an RGB image resized to `size`, width and height.

    Larger images are resized by torch, which has the processor's vector instructions for that and is
    within two levels of Pillow. Of very long ones the part alone is made: whole, a line of 20,000 pixels
    would be scaled to gigabytes.
    """
    left, top, right, bottom = window
    extent = right - left, bottom - top
    if size[0] * size[1] > LARGEST_WHOLE * extent[0] * extent[1]:
        across, down = image.width / size[0], image.height / size[1]
        box = (left * across, top * down, right * across, bottom * down)
        return np.asarray(image.resize(extent, RESAMPLING[interpolation], box=box))
    if image.width * image.height < LARGE or interpolation not in OF_TORCH:
        return np.asarray(image.resize(size, RESAMPLING[interpolation]).crop(window))
    return _resized_by_torch(image, size, interpolation)[top:bottom, left:right]


def _resized_by_torch(
    image: Image.Image, size: tuple[int, int], interpolation: str
) -> UInt8[np.ndarray, "height width 3"]:
    import torch
    from torch.nn import functional

    # As a batch before the channels are moved: so torch sees that they lie last, as its fast path wants
    # them. With strides that hide this, it copies to planes and back, which takes twice the time.
    pixels = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(pixels, size[::-1], mode=interpolation, antialias=True)
    return resized.permute(0, 2, 3, 1)[0].numpy()


def _resized(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height before the crop, rounded as torchvision and timm do, at least 1."""
    scaled = math.floor(spec.size / spec.crop_pct)
    if spec.crop_mode == "squash":
        return scaled, scaled
    if spec.crop_mode == "border":
        ratio = max(width, height) / scaled
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return scaled, int(scaled * height / width)
    return int(scaled * width / height), scaled


def _offset(extent: int, size: int) -> int:
    """Where a side begins on the canvas: below zero if its ends are cut, above if it is padded."""
    return (size - extent) // 2 if extent < size else -round((extent - size) / 2)
