"""Encoded images and arrays to upright 8-bit RGB."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def decode(image: bytes | np.ndarray) -> Image.Image:
    """The image in RGB, upright by its EXIF orientation, fully loaded.

    Transparent pixels show white behind them. 16-bit grey values are divided by 257, so that the
    full range maps to 0..255; 32-bit integers count as 16-bit values, floats as 0..1 where none is
    larger, else as 0..255. Of an animation the first frame is taken.

    Args:
        image: an encoded image, or an array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] (RGBA), uint8
            or uint16.

    Raises:
        ValueError: the image can't be decoded; the message is a short reason.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not image:
        raise ValueError("empty file")
    try:
        with Image.open(BytesIO(image)) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
        return _to_rgb(upright)
    except UnidentifiedImageError:
        raise ValueError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError("decompression bomb") from None
    except UnusableValuesError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        if "truncated" in str(error).lower() or _is_short_webp(image):
            raise ValueError("truncated image") from error
        raise ValueError(f"broken image ({str(error) or type(error).__name__})") from error


class UnusableValuesError(ValueError):
    """Pixels outside the range that the image's type stands for."""


def _is_short_webp(data: bytes) -> bool:
    """Whether a RIFF header announces more bytes than there are; libwebp gives no reason."""
    return data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"array of {array.dtype}, not uint8 or uint16")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"array of shape {list(array.shape)}, not [h, w] or [h, w, 1, 3 or 4]")
    if not array.size:
        raise ValueError("array without pixels")
    return _to_rgb(Image.fromarray(_to_8_bits(array)))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; wider integers from 0..65535 to the nearest of 0..255."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnusableValuesError("32-bit values outside 0..65535")
        return Image.fromarray(_to_8_bits(values)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_float_to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    visible = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, visible).convert("RGB")


def _float_to_8_bits(values: np.ndarray) -> np.ndarray:
    if not (values.min() >= 0 and values.max() <= 255):  # also where a value is not a number
        raise UnusableValuesError("float values outside 0..255")
    scale = 255 if values.max() <= 1 else 1
    return np.rint(values * scale).astype(np.uint8)
