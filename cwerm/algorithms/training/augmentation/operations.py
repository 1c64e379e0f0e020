"""What policies do to images: each operation on many images at once, on each as much as is asked.

They are those of torchvision's `TrivialAugmentWide` and `RandAugment`, which do the same to a whole batch.
Images are uint8 [n, 3, height, width], strengths floats [n]; nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import equalize, rgb_to_grayscale

__all__ = ["OPERATIONS"]

Images = UInt8[Tensor, "n 3 height width"]
Strengths = Float[Tensor, " n"]


def _identity(images: Images, _: Strengths) -> Images:
    return images


def _placed(images: Images, matrix: list[list[Tensor]], shift: list[Tensor]) -> Images:
    """Each pixel from where `matrix` and `shift` send its place, nearest; black from outside.

    Places are counted in pixels from the middle of the image, to the right and down.
    """
    height, width = images.shape[2:]
    down, right = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in (height, width))
    down, right = down[:, None], right[None, :]

    def from_where(row: list[Tensor], offset: Tensor) -> Tensor:
        across, along = (value.view(-1, 1, 1) for value in row)
        return across * right + along * down + offset.view(-1, 1, 1)

    columns, rows = (from_where(row, offset) for row, offset in zip(matrix, shift, strict=True))
    grid = torch.stack([columns * (2 / width), rows * (2 / height)], dim=-1)
    return functional.grid_sample(images.float(), grid, "nearest", align_corners=False).to(
        torch.uint8
    )


def _shear_x(images: Images, strengths: Strengths) -> Images:
    zero, one = torch.zeros_like(strengths), torch.ones_like(strengths)
    corner = strengths * (images.shape[2] / 2)  # torchvision's stays where it is
    return _placed(images, [[one, strengths], [zero, one]], [corner, zero])


def _shear_y(images: Images, strengths: Strengths) -> Images:
    zero, one = torch.zeros_like(strengths), torch.ones_like(strengths)
    corner = strengths * (images.shape[3] / 2)
    return _placed(images, [[one, zero], [strengths, one]], [zero, corner])


def _translate_x(images: Images, strengths: Strengths) -> Images:
    zero, one = torch.zeros_like(strengths), torch.ones_like(strengths)
    return _placed(images, [[one, zero], [zero, one]], [-strengths.trunc(), zero])


def _translate_y(images: Images, strengths: Strengths) -> Images:
    zero, one = torch.zeros_like(strengths), torch.ones_like(strengths)
    return _placed(images, [[one, zero], [zero, one]], [zero, -strengths.trunc()])


def _rotate(images: Images, strengths: Strengths) -> Images:
    angle, zero = strengths.deg2rad(), torch.zeros_like(strengths)
    cosine, sine = angle.cos(), angle.sin()
    return _placed(images, [[cosine, -sine], [sine, cosine]], [zero, zero])


def _blended(images: Images, other: Tensor | float, strengths: Strengths) -> Images:
    """The images at 0, `other` at -1, and beyond the images above 0."""
    ratio = (1 + strengths).view(-1, 1, 1, 1)
    return (images * ratio + other * (1 - ratio)).clamp_(0, 255).to(torch.uint8)


def _brightness(images: Images, strengths: Strengths) -> Images:
    return _blended(images, 0.0, strengths)


def _color(images: Images, strengths: Strengths) -> Images:
    return _blended(images, rgb_to_grayscale(images), strengths)


def _contrast(images: Images, strengths: Strengths) -> Images:
    mean = rgb_to_grayscale(images).float().mean((1, 2, 3), keepdim=True)
    return _blended(images, mean, strengths)


def _sharpness(images: Images, strengths: Strengths) -> Images:
    if min(images.shape[2:]) < 3:
        return images
    values = images.float()
    inner = values[:, :, 1:-1, 1:-1]
    blurred = (9 * functional.avg_pool2d(values, 3, 1) + 4 * inner) / 13
    other = values.clone()
    other[:, :, 1:-1, 1:-1] = blurred.round_()
    return _blended(images, other, strengths)


def _posterize(images: Images, strengths: Strengths) -> Images:
    step = (2 ** (8 - strengths.round())).to(torch.uint8).view(-1, 1, 1, 1)
    return torch.where(step > 0, images - images % step.clamp(min=1), 0)


def _solarize(images: Images, strengths: Strengths) -> Images:
    return torch.where(images >= 255 * strengths.view(-1, 1, 1, 1), 255 - images, images)


def _autocontrast(images: Images, _: Strengths) -> Images:
    values = images.float()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    made = (values - low) / ((high - low) / 255).clamp(min=1e-6)
    return torch.where(high > low, made.clamp_(0, 255).to(torch.uint8), images)


def _equalize(images: Images, _: Strengths) -> Images:
    return equalize(images)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
