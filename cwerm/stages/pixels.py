"""Images of the store as one uint8 tensor, square and in RGB: what classifiers train on."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cwerm.algorithms.networks.preprocessing import resize_window
from cwerm.data.images import decode
from cwerm.stages import common
from cwerm.store.artifacts import Artifact, ArtifactStore

LARGEST_AUTO_SIZE = 224
# of the input of pretrained networks, for images whose shorter side is no longer; else the network's own
SIDES = (64, 128)


def square_size(asked: int | None, images: Artifact) -> int:
    """Side in pixels: as asked, or that of the images, or their median shorter side up to 224."""
    if asked is not None:
        return asked
    common_size = images.info["common_size"]
    if common_size and common_size[0] == common_size[1]:
        return int(common_size[0])
    return int(min(images.info["median_short_side"], LARGEST_AUTO_SIZE))


def pretrained_side(images: Artifact) -> int | None:
    """Side in pixels at which a pretrained network sees small images; None for its own."""
    return next((side for side in SIDES if images.info["median_short_side"] <= side), None)


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """Scale the shorter side to ``size`` and cut out the centre: uint8 [size, size, 3]."""
    if image.size != (size, size):
        width, height = image.size
        scale = size / min(width, height)
        scaled = max(size, round(width * scale)), max(size, round(height * scale))
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        window = (left, top, left + size, top + size)
        return resize_window(image, scaled, window, "bicubic")
    return np.asarray(image)


def take_pixels(
    store: ArtifactStore, artifact: Artifact, table: str, ids: np.ndarray, size: int
) -> np.ndarray:
    """The images of ``ids``, uint8 [m, 3, size, size]."""
    images = common.take_rows(store, artifact, table, "image", ids)
    return np.stack([to_square(decode(image), size).transpose(2, 0, 1) for image in images])
