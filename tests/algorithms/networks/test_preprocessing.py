"""Larger images are resized by torch, within two levels of Pillow, small ones by Pillow alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cwerm.algorithms.networks.preprocessing import LARGE, RESAMPLING, InputSpec, preprocess

SIDE = 96


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth, with some noise."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + random.integers(-9, 10, smooth.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(20, 900),
    height=st.integers(20, 700),
    interpolation=st.sampled_from(sorted(RESAMPLING)),
    crop_pct=st.sampled_from([0.8, 0.875, 1.0, 1.25]),
)
def test_within_two_levels_of_pillow(
    width: int, height: int, interpolation: str, crop_pct: float
) -> None:
    image = picture(width, height, width)
    spec = InputSpec(SIDE, (0.0,) * 3, (1.0,) * 3, interpolation, crop_pct, "squash")
    found = preprocess(image, spec)
    assert found.flags.writeable  # or torch would warn
    side = int(SIDE / crop_pct)
    whole = image.resize((side, side), RESAMPLING[interpolation])
    left = (side - SIDE) // 2 if side < SIDE else -round((side - SIDE) / 2)
    expected = Image.new("RGB", (SIDE, SIDE))
    # what lies outside of the square is cut off, what it has beyond the image is black
    expected.paste(whole, (-left, -left) if side < SIDE else (left, left))
    apart = np.abs(found.astype(int) - np.asarray(expected))
    exact = interpolation == "lanczos" or width * height < LARGE
    assert apart.max() <= (0 if exact else 2)
    assert (apart > 0).mean() < 0.25


def test_small_images_do_not_load_torch() -> None:
    code = f"""
import sys
from PIL import Image
from cwerm.algorithms.networks.preprocessing import InputSpec, preprocess
spec = InputSpec({SIDE}, (0.0,) * 3, (1.0,) * 3, "bicubic", 1.0, "center")
preprocess(Image.new("RGB", (199, 200)), spec)
assert "torch" not in sys.modules
preprocess(Image.new("RGB", (200, 200)), spec)
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
