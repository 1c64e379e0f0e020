"""JPEGs of all kinds to a backbone's square, as extract makes it: within two levels of Pillow alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from cwerm.algorithms.networks.preprocessing import InputSpec, preprocess
from cwerm.data.images import decode

SPEC = InputSpec(224, (0.0,) * 3, (1.0,) * 3, "bicubic", 0.875, "center")
SIZES = [(500, 375), (333, 517), (641, 225), (224, 224), (277, 1023)]
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0, "quality": 95},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2, "quality": 60},
    "progressive": {"progressive": True, "quality": 85},
    "coarse": {"quality": 8},
    "restart markers": {"restart_marker_blocks": 7},
}


def picture(size: tuple[int, int], seed: int, mode: str) -> Image.Image:
    """Smooth, with some noise."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    smooth = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-12, 13, smooth.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8)).convert(mode)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    short = min(image.size)
    width, height = (int(256 * side / short) for side in image.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_within_two_levels_of_pillow(kind: str, mode: str) -> None:
    for seed, size in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = 1 + (seed + len(kind)) % 8
        buffer = io.BytesIO()
        picture(size, seed, mode).save(buffer, "JPEG", exif=exif, **KINDS[kind])
        found = preprocess(decode(buffer.getvalue()), SPEC)
        apart = np.abs(found.astype(int) - by_pillow(buffer.getvalue()))
        assert apart.max() <= 2, size
        assert (apart > 1).mean() < 0.001, size  # other roundings, where the scale is near 1
