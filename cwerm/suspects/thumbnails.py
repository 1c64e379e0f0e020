"""Small pictures for pages."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from cwerm.data.images import decode
from cwerm.stages import common
from cwerm.stages.pixels import to_square
from cwerm.store.artifacts import Artifact, ArtifactStore

SIDE, QUALITY = 96, 70  # pixels, and WebP's
AT_ONCE = 1000  # images read at a time


def thumbnails(
    store: ArtifactStore, images: Artifact, ids: list[int], table: str = "images"
) -> dict[int, bytes]:
    """WebP by id, of images of the artifact's ``table``."""
    made = {}
    for start in range(0, len(ids), AT_ONCE):
        some = np.array(ids[start : start + AT_ONCE])
        taken = common.take_rows(store, images, table, "image", some)
        for number, image in zip(some.tolist(), taken, strict=True):
            buffer = io.BytesIO()
            square = Image.fromarray(to_square(decode(image), SIDE))
            square.save(buffer, format="WEBP", quality=QUALITY)
            made[number] = buffer.getvalue()
    return made
