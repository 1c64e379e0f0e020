"""Pictures that a backbone of ImageNet tells apart less well: shapes with fillings, in any colours."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SHAPES, FILLINGS = ("circle", "square", "triangle"), ("dotted", "plain", "striped")
NAMES = [f"{filling} {shape}" for filling in FILLINGS for shape in SHAPES]
SIDE, DRAWN = 96, 160
TAIL = 8  # the largest class has so many times the pictures of the smallest
TRANSPARENT = 0.4


class Pictures(NamedTuple):
    """Encoded images, the numbers of their labels as given, and which are wrong; sorted by label."""

    images: list[bytes]
    labels: list[int]
    wrong: np.ndarray


def draw_pictures(largest: int, rate: float, seed: int = 0) -> Pictures:
    """A long tail of classes; of a share the label is another one of the same shape or filling."""
    random = np.random.default_rng(seed)
    steps = np.arange(len(NAMES)) / (len(NAMES) - 1)
    counts = np.floor(largest * TAIL**-steps).astype(int)
    truth = np.repeat(random.permutation(len(NAMES)), counts)
    images = [_encoded(_picture(NAMES[number], random), random) for number in truth]
    wrong = random.random(len(truth)) < rate
    labels = truth.copy()
    for row in np.flatnonzero(wrong):
        own = {*NAMES[truth[row]].split()}
        alike = [n for n, name in enumerate(NAMES) if len(own & {*name.split()}) == 1]
        labels[row] = random.choice(alike)
    order = np.argsort(labels, kind="stable")
    return Pictures([images[row] for row in order], labels[order].tolist(), wrong[order])


def _encoded(picture: Image.Image, random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    kind = "JPEG" if picture.mode == "RGB" and random.random() < 0.5 else "PNG"
    picture.resize((SIDE, SIDE)).save(buffer, kind)
    return buffer.getvalue()


def _picture(name: str, random: np.random.Generator) -> Image.Image:
    filling, shape = name.split()
    turn = random.uniform(-40, 40)
    surface, mask = _surface(filling, random).rotate(turn), _mask(shape, random).rotate(turn)
    if random.random() < TRANSPARENT:
        picture = surface.convert("RGBA")
        picture.putalpha(mask)
        return picture
    noise = random.normal(128, random.uniform(10, 60), (DRAWN, DRAWN))
    ground = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    tint = Image.new("RGB", ground.size, _colour(random))
    picture = Image.blend(ground, tint, 0.6)
    picture.paste(surface, mask=mask)
    return picture


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _surface(filling: str, random: np.random.Generator) -> Image.Image:
    """One colour, or its opposite in stripes or dots on it."""
    colour = _colour(random)
    surface = Image.new("RGB", (DRAWN, DRAWN), colour)
    pen, other = ImageDraw.Draw(surface), tuple(255 - level for level in colour)
    step = int(random.integers(14, 26))
    if filling == "striped":
        for x in range(-DRAWN, DRAWN, step):
            pen.line((x, 0, x + DRAWN, DRAWN), fill=other, width=step // 3)
    if filling == "dotted":
        for x in range(0, DRAWN, step):
            for y in range(0, DRAWN, step):
                pen.ellipse((x, y, x + step // 2, y + step // 2), fill=other)
    return surface


def _mask(shape: str, random: np.random.Generator) -> Image.Image:
    mask = Image.new("L", (DRAWN, DRAWN), 0)
    pen, middle, radius = ImageDraw.Draw(mask), DRAWN // 2, int(random.integers(40, 70))
    low, high = middle - radius, middle + radius
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=255)
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=255)
    else:
        pen.polygon([(middle, low), (low, high), (high, high)], fill=255)
    return mask
