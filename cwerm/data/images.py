"""Encoded images and arrays to upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cwerm.data.foreign import foreign

FULL_SCALES = (255, 1023, 4095, 16383, 65535)
"""Largest values of integers of 8, 10, 12, 14 and 16 bits, as they lie in files of 16."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation
_GREYS_OF_BITS = {
    "L;2": (3, 85),
    "L;4": (15, 17),
}  # mask and factor to 0..255, by Pillow's raw mode
_OTHER_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}


def decode(image: bytes | np.ndarray, full_scale: int = 65535) -> Image.Image:
    """The image in RGB, upright by its EXIF orientation, fully loaded.

    Transparent pixels show white behind them. Integers of more than 8 bits are scaled so that
    ``full_scale`` becomes 255. Floats count as 0..1 where none is larger, else as 0..255. Of an
    animation or a file of several pages the first is taken.

    Args:
        image: an encoded image, or an array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] (RGBA), uint8
            or uint16.
        full_scale: the largest value that integers of more than 8 bits can have.

    Raises:
        ValueError: the image can't be decoded; the message is a short reason.
        OSError: something else than the image is in the way.
    """
    return read(image).to_rgb(full_scale)


def read(image: bytes | np.ndarray) -> Picture:
    """The image as it is stored, upright.

    Raises:
        ValueError: as `decode`.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not image:
        raise ValueError("empty file")
    with _reasons(image):
        return _open(image)


@dataclass(frozen=True)
class Picture:
    """An image before its values become 8 bits.

    Attributes:
        image: the pixels as Pillow reads them; for colours of 16 bits, their high bytes.
        clear: those of one transparent value, a mask in mode ``L``.
        wide: integers of more than 8 bits, uint16 [h, w, 3 or 4], where ``image`` can't hold them.
    """

    image: Image.Image
    clear: Image.Image | None = None
    wide: np.ndarray | None = None

    @functools.cached_property
    def largest(self) -> int | None:
        """The largest value, alpha apart, of integers of more than 8 bits; None for others."""
        if self.wide is not None:
            return int(self.wide[:, :, :3].max())
        return int(np.asarray(self.image).max()) if self.image.mode.startswith("I") else None

    def to_rgb(self, full_scale: int = 65535) -> Image.Image:
        """As `decode` gives it.

        Raises:
            ValueError: values outside the range of the image's type.
        """
        with _reasons():
            rgb = _to_rgb(self._in_8_bits(full_scale))
        if self.clear is not None:
            rgb.paste("white", mask=self.clear)
        return rgb

    def _in_8_bits(self, full_scale: int) -> Image.Image:
        if self.wide is not None and full_scale < 65535:
            colours = Image.fromarray(_to_8_bits(self.wide[:, :, :3], full_scale))
            if "A" in self.image.getbands():
                colours.putalpha(self.image.getchannel("A"))
            return colours
        if self.image.mode.startswith("I"):
            values = np.asarray(self.image)
            if values.min() < 0 or values.max() > 65535:
                raise UnusableValuesError("32-bit values outside 0..65535")
            return Image.fromarray(_to_8_bits(values, full_scale))
        if self.image.mode == "F":
            return Image.fromarray(_float_to_8_bits(np.asarray(self.image)))
        return self.image


@contextlib.contextmanager
def _reasons(data: bytes = b"") -> Iterator[None]:
    """Turn what Pillow raises into a `ValueError` with a short reason, and keep its remarks quiet.

    It remarks on large images and on what it repairs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise ValueError(foreign(data)) from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"decompression bomb (more than {most:,} pixels)") from None
    except UnusableValuesError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, such as too many open files: Pillow's own have no number
        if "truncated" in str(error).lower() or _is_short_webp(data):
            raise ValueError("truncated image") from error
        raise ValueError(f"broken image ({str(error) or type(error).__name__})") from error


class UnusableValuesError(ValueError):
    """Pixels outside the range that the image's type stands for."""


@functools.cache
def _formats() -> tuple[str, ...]:
    """All that Pillow opens, but for PostScript, which it would give to a program to run."""
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _open(data: bytes) -> Picture:
    with Image.open(BytesIO(data), formats=_formats()) as opened:
        raw_mode = _raw_mode(opened)
        opened.load()
        wide = None
        if opened.mode in ("RGB", "RGBA") and raw_mode[-4:] in _OTHER_BYTE:
            wide = _of_16_bits(data, opened)
        clear = _clear_pixels(opened, raw_mode, wide)
        if clear is not None:
            opened.info.pop("transparency")
        image: Image.Image = opened
        turn = _turn(opened)
        if turn is not None:
            image = opened.transpose(turn)
            clear = clear.transpose(turn) if clear else None
            if wide is not None:
                channels = [Image.fromarray(wide[:, :, c]) for c in range(wide.shape[2])]
                wide = np.stack([np.asarray(c.transpose(turn)) for c in channels], axis=2)
        return Picture(image, clear, wide)


def _raw_mode(opened: Image.Image) -> str:
    """How Pillow unpacks the file's values, such as ``L;2`` or ``RGB;16B``; "" where it isn't told."""
    tiles = getattr(opened, "tile", None)
    arguments = tiles[0].args if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _of_16_bits(data: bytes, high: Image.Image) -> np.ndarray | None:
    """Colours of 16 bits, of which Pillow keeps the high bytes: read again as if bytes were swapped.

    None where the high bytes alone show that all 16 bits are in use, so that the others say little.
    """
    high_bytes = np.asarray(high)
    if high_bytes[:, :, :3].max() >= 64 and "transparency" not in high.info:
        return None
    with Image.open(BytesIO(data), formats=_formats()) as opened:
        opened.tile = [tile._replace(args=_swapped(tile.args)) for tile in opened.tile]
        opened.load()
        low_bytes = np.asarray(opened)
    return high_bytes.astype(np.uint16) * 256 + low_bytes


def _swapped(arguments: Any) -> Any:
    if isinstance(arguments, tuple):
        return _swapped(arguments[0]), *arguments[1:]
    return arguments[:-4] + _OTHER_BYTE[arguments[-4:]]


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """What makes the image upright. Only the orientation is read: other EXIF may be damaged."""
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _clear_pixels(
    opened: Image.Image, raw_mode: str, wide: np.ndarray | None
) -> Image.Image | None:
    """The pixels of the one grey or colour that a file names as transparent, a mask.

    Pillow keeps that value as the file has it, but scales pixels of 2 and 4 bits and cuts those of 16.
    """
    value = opened.info.get("transparency")
    if isinstance(value, int) and opened.mode in ("1", "L", "I;16", "I;16B", "I"):
        mask, factor = _GREYS_OF_BITS.get(raw_mode, (0xFFFF, 1))
        greys = np.asarray(opened.convert("L") if opened.mode == "1" else opened)
        found = greys == (value & mask) * factor
    elif isinstance(value, tuple) and len(value) == 3 and opened.mode == "RGB":
        found = (np.asarray(opened) if wide is None else wide) == np.array(value)
        found = found.all(axis=2)
    else:
        return None
    return Image.fromarray(found.astype(np.uint8) * 255)


def _is_short_webp(data: bytes) -> bool:
    """Whether a RIFF header announces more bytes than there are; libwebp gives no reason."""
    return data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"array of {array.dtype}, not uint8 or uint16")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(f"array of shape {list(array.shape)}, not [h, w] or [h, w, 1, 3 or 4]")
    if not array.size:
        raise ValueError("array without pixels")
    if array.dtype == np.uint8 or array.ndim == 2:
        return Picture(Image.fromarray(array))
    return Picture(Image.fromarray(_to_8_bits(array, 65535)), wide=array)


def _to_8_bits(values: np.ndarray, full_scale: int) -> np.ndarray:
    """Integers from 0..full_scale to the nearest of 0..255."""
    scaled = (values.astype(np.uint32) * 255 + full_scale // 2) // full_scale
    return np.minimum(scaled, 255).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    visible = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, visible).convert("RGB")


def _float_to_8_bits(values: np.ndarray) -> np.ndarray:
    if np.isnan(values).any():
        raise UnusableValuesError("float values that are no numbers (NaN)")
    if not (values.min() >= 0 and values.max() <= 255):
        raise UnusableValuesError("float values outside 0..255")
    scale = 255 if values.max() <= 1 else 1
    return np.rint(values * scale).astype(np.uint8)
