"""The images of one part as a table: as they lie in the source."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL.Image import Image

from cwerm.data.images import FULL_SCALES, decode, read
from cwerm.data.source import Sample
from cwerm.store import schema


def images_table(samples: list[Sample], ids: np.ndarray, full_scale: int) -> pa.Table:
    """Those of the samples that have an id, 0 or more."""
    kept = np.flatnonzero(ids >= 0)
    images = _image_column([_scaled(samples[i].image, full_scale) for i in kept])
    columns = [
        pa.array(ids[kept], pa.int64()),
        images,
        pa.array([samples[i].path for i in kept], pa.string()),
    ]
    return pa.table(columns, schema=schema.table_schema("images", value_type=images.type))


def _scaled(image: bytes | np.ndarray, full_scale: int) -> bytes | np.ndarray:
    """The image as it is, but in 8 bits where its data set uses only a part of 16: later stages read
    an image alone, and can't know.
    """
    if full_scale == FULL_SCALES[-1]:
        return image
    picture = read(image)
    return image if picture.largest is None else _png(picture.to_rgb(full_scale))


def _image_column(images: list[bytes | np.ndarray]) -> pa.Array:
    """Encoded images stay as they are; pixel arrays of one shape become a tensor column."""
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    shapes = {(image.shape, image.dtype) for image in arrays}
    if arrays and len(arrays) == len(images) and len(shapes) == 1 and arrays[0].dtype == np.uint8:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(arrays))
    return pa.array([i if isinstance(i, bytes) else _png(decode(i)) for i in images], pa.binary())


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
