"""Every kind of image Pillow writes, against pixels computed here."""

from __future__ import annotations

import contextlib
import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cwerm.data import decode

GENERATOR = np.random.default_rng(0)


def random_pixels(*shape: int) -> np.ndarray:
    return GENERATOR.integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: bytes | np.ndarray) -> np.ndarray:
    decoded = decode(image)
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[:, :, None] / 255
    return colour * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_grey(kind: str) -> None:
    values = random_pixels(7, 5)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(values), kind, **options)), grey(values)
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_colour(kind: str) -> None:
    values = random_pixels(7, 5, 3)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), kind)), values)


def test_one_bit() -> None:
    values = random_pixels(7, 5) > 127
    np.testing.assert_array_equal(
        pixels(encoded(Image.fromarray(values))), grey(values.astype(np.uint8) * 255)
    )


def test_palette() -> None:
    palette = random_pixels(16, 3)
    indices = GENERATOR.integers(0, 16, (7, 5), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    assert image.mode == "P"
    np.testing.assert_array_equal(pixels(encoded(image)), palette[indices])


@pytest.mark.parametrize("as_bytes", [False, True])
def test_palette_with_transparency(as_bytes: bool) -> None:
    palette = random_pixels(16, 3)
    indices = GENERATOR.integers(0, 16, (7, 5), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    alpha = np.full(16, 255, dtype=np.uint8)
    alpha[3] = 0
    if as_bytes:
        alpha = random_pixels(16)
    transparency = alpha.tobytes() if as_bytes else 3
    expected = over_white(palette[indices], alpha[indices])
    actual = pixels(encoded(image, transparency=transparency))
    np.testing.assert_allclose(actual, expected, atol=1)


def test_grey_and_colour_with_a_transparent_value() -> None:
    values = np.array([[10, 20], [20, 30]], dtype=np.uint8)
    expected = grey(np.where(values == 20, 255, values))
    image = Image.fromarray(values)
    np.testing.assert_array_equal(pixels(encoded(image, transparency=20)), expected)
    colour = image.convert("RGB")
    np.testing.assert_array_equal(pixels(encoded(colour, transparency=(20, 20, 20))), expected)


def test_alpha_over_white() -> None:
    values = random_pixels(7, 5, 4)
    expected = over_white(values[:, :, :3], values[:, :, 3])
    np.testing.assert_allclose(pixels(encoded(Image.fromarray(values))), expected, atol=1)
    np.testing.assert_allclose(pixels(values), expected, atol=1)


def test_grey_alpha_over_white() -> None:
    values, alpha = random_pixels(7, 5), random_pixels(7, 5)
    image = Image.merge("LA", [Image.fromarray(values), Image.fromarray(alpha)])
    expected = over_white(grey(values), alpha)
    np.testing.assert_allclose(pixels(encoded(image)), expected, atol=1)


def test_cmyk() -> None:
    inks = random_pixels(7, 5, 4)
    light = 255 - inks.astype(float)
    expected = light[:, :, :3] * light[:, :, 3:] / 255
    image = Image.frombytes("CMYK", (5, 7), inks.tobytes())
    np.testing.assert_allclose(pixels(encoded(image, "TIFF")), expected, atol=1)


def test_adobe_cmyk_jpeg() -> None:
    inks = (200, 30, 100, 40)
    data = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    assert b"Adobe" in data  # the marker that says the inks are stored inverted
    expected = [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]
    np.testing.assert_allclose(pixels(data), np.broadcast_to(expected, (16, 16, 3)), atol=3)


def test_ycbcr() -> None:
    components = random_pixels(7, 5, 3)
    luma, blue, red = components.astype(float).transpose(2, 0, 1)
    blue, red = blue - 128, red - 128
    expected = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=2
    )
    image = Image.frombytes("YCbCr", (5, 7), components.tobytes())
    actual = pixels(encoded(image, "TIFF"))
    np.testing.assert_allclose(actual, expected.clip(0, 255), atol=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = GENERATOR.integers(0, 65536, (7, 5)).astype(np.uint16)
    values[0, :3] = 0, 65535, 257
    expected = grey(np.rint(values / 257))
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), kind)), expected)
    np.testing.assert_array_equal(pixels(values), expected)


def test_big_endian_16_bit_tiff() -> None:
    values = np.array([[0, 257], [25700, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (2, 2), values.tobytes())
    expected = grey(np.array([[0, 1], [100, 255]]))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF")), expected)


def test_32_bit_integers() -> None:
    values = np.array([[0, 257], [25700, 65535]], dtype=np.int32)
    expected = grey(np.array([[0, 1], [100, 255]]))
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), "TIFF")), expected)
    with pytest.raises(ValueError, match=r"^32-bit values outside 0\.\.65535$"):
        decode(encoded(Image.fromarray(values + 1), "TIFF"))


def test_floats() -> None:
    unit = GENERATOR.random((7, 5), dtype=np.float32)
    expected = grey(np.rint(unit.astype(float) * 255))
    assert np.abs(pixels(encoded(Image.fromarray(unit), "TIFF")) - expected).max() <= 1
    wide = random_pixels(7, 5).astype(np.float32)
    wide[0, 0] = 255
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(wide), "TIFF")), grey(wide))
    outside, none = (
        r"^float values outside 0\.\.255$",
        r"^float values that are no numbers \(NaN\)$",
    )
    for bad, reason in ((-1, outside), (256, outside), (np.inf, outside), (np.nan, none)):
        wide[0, 0] = bad
        with pytest.raises(ValueError, match=reason):
            decode(encoded(Image.fromarray(wide), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    # The stored pixels for each orientation, undone here by the definition in the EXIF standard.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, 1),
    }
    values = random_pixels(7, 5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    actual = pixels(encoded(Image.fromarray(values), exif=exif))
    np.testing.assert_array_equal(actual, undo[orientation](values))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(data), np.broadcast_to([255, 0, 0], (4, 4, 3)))


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3)])
def test_arrays(shape: tuple[int, ...]) -> None:
    values = random_pixels(*shape)
    expected = np.broadcast_to(values.reshape(7, 5, -1), (7, 5, 3))
    np.testing.assert_array_equal(pixels(values), expected)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4), np.float32), "array of float32, not uint8 or uint16"),
        (
            np.zeros((4, 4, 2), np.uint8),
            "array of shape [4, 4, 2], not [h, w] or [h, w, 1, 3 or 4]",
        ),
        (np.zeros(16, np.uint8), "array of shape [16], not [h, w] or [h, w, 1, 3 or 4]"),
        (np.zeros((0, 4), np.uint8), "array without pixels"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^array") as error:
        decode(array)
    assert str(error.value) == reason


def test_empty_and_foreign_files() -> None:
    with pytest.raises(ValueError, match=r"^empty file$"):
        decode(b"")
    for data in (bytes(1000), b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(ValueError, match=r"^not an image$"):
            decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP"])
def test_truncated_files(kind: str) -> None:
    data = encoded(Image.fromarray(random_pixels(64, 64, 3)), kind)
    with pytest.raises(ValueError, match=r"^truncated image$"):
        decode(data[: len(data) // 2])


def test_broken_png() -> None:
    data = bytearray(encoded(Image.fromarray(random_pixels(64, 64, 3))))
    data[200:300] = bytes(100)
    with pytest.raises(ValueError, match=r"^broken image "):
        decode(bytes(data))


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(max_size=20),
    cut=st.booleans(),
)
def test_damage_only_ever_raises_value_error(
    kind: str, place: float, junk: bytes, cut: bool
) -> None:
    data = encoded(Image.linear_gradient("L").resize((24, 24)), kind)
    at = int(place * len(data))
    damaged = data[:at] + junk + (b"" if cut else data[at + len(junk) :])
    with warnings.catch_warnings(), contextlib.suppress(ValueError):
        warnings.simplefilter("ignore")  # Pillow remarks on some damage before it decodes the rest
        assert decode(damaged).mode == "RGB"
