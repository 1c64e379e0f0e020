"""Sound images of unusual make, built byte by byte where Pillow does not write them; and foreign files."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cwerm.data import decode
from cwerm.data.images import read

GENERATOR = np.random.default_rng(1)
COLOURS = np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[9, 9, 9], [90, 90, 90], [200] * 3]])


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes | np.ndarray, full_scale: int = 65535) -> np.ndarray:
    return np.asarray(decode(data, full_scale))


def png(rows: bytes, width: int, height: int, bits: int, colour: int, clear: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    transparent = chunk(b"tRNS", clear) if clear else b""
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + transparent + body


def grey_png(values: np.ndarray, bits: int, clear: int | None = None) -> bytes:
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    height, width = values.shape
    mark = b"" if clear is None else struct.pack(">H", clear)
    return png(rows, width, height, bits, 0, mark)


def colour_png(values: np.ndarray, clear: tuple[int, ...] = ()) -> bytes:
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    mark = struct.pack(">3H", *clear) if clear else b""
    return png(rows, width, height, 16, 2 if channels == 3 else 6, mark)


# --- transparency ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_with_a_transparent_value(bits: int) -> None:
    largest = 2**bits - 1
    values = GENERATOR.integers(0, largest + 1, (4, 16))
    values[0, :3] = 0, largest, largest // 3
    for clear in {0, largest, largest // 3}:
        expected = np.rint(values * 255 / largest)
        expected[values == clear] = 255
        found = pixels(grey_png(values, bits, clear))
        assert np.array_equal(found, np.repeat(expected[:, :, None], 3, axis=2)), clear


def test_colours_of_16_bits_with_a_transparent_one() -> None:
    values = np.full((2, 3, 3), 3000)
    values[0, 0] = values[1, 2] = 40000, 500, 7
    values[0, 1] = 40000, 501, 7  # differs in the low byte alone
    found = pixels(colour_png(values, (40000, 500, 7)))
    expected = values // 256
    expected[0, 0] = expected[1, 2] = 255
    assert np.array_equal(found, expected)


def test_alpha_premultiplied_and_with_palettes() -> None:
    colours, alpha = GENERATOR.integers(0, 256, (5, 4, 3)), GENERATOR.integers(60, 256, (5, 4, 1))
    colours[0, 0], alpha[0, 0] = 0, 0
    expected = (colours * alpha + 255.0 * (255 - alpha)) / 255
    multiplied = np.rint(np.concatenate([colours * alpha / 255, alpha], axis=2)).astype(np.uint8)
    data = encoded(Image.fromarray(multiplied), "TIFF")
    data = data.replace(struct.pack("<HHIH", 338, 3, 1, 2), struct.pack("<HHIH", 338, 3, 1, 1))
    with Image.open(BytesIO(data)) as opened:
        assert opened.tag_v2[338] == (1,)  # the colours are multiplied already
    assert np.abs(pixels(data) - expected).max() <= 2
    straight = np.concatenate([colours, alpha], axis=2).astype(np.uint8)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        assert (
            np.abs(pixels(encoded(Image.fromarray(straight), kind, **options)) - expected).max()
            <= 1
        )


# --- turning ---------------------------------------------------------------------------------------


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def exif(*entries: bytes) -> bytes:
    start = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return start + b"".join(sorted(entries, key=lambda e: e[1::-1])) + bytes(4)


def with_exif(jpeg: bytes, data: bytes) -> bytes:
    marked = b"Exif\0\0" + data
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(marked) + 2) + marked + jpeg[2:]


TURN = entry(0x0112, 3, 1, struct.pack("<H", 6))
ODD = {
    "text for a fraction": entry(0x011A, 2, 4, b"72"),
    "double outside the file": entry(0x0131, 12, 1, struct.pack("<I", 8)),
    "numbers for text": entry(0x010E, 3, 2, struct.pack("<HH", 1, 2)),
    "negative fraction": entry(0x829A, 10, 1, struct.pack("<I", 2)),
    "unknown type": entry(0x9999, 99, 1, b"x"),
    "camera's block outside": entry(0x8769, 4, 1, struct.pack("<I", 10**6)),
    "place's block in itself": entry(0x8825, 4, 1, struct.pack("<I", 8)),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_exif_does_not_keep_an_image_from_turning(odd: str) -> None:
    values = np.repeat(np.repeat(COLOURS, 16, axis=0), 16, axis=1).astype(np.uint8)  # 32 x 48
    jpeg = encoded(Image.fromarray(values), "JPEG", quality=95)
    found = pixels(with_exif(jpeg, exif(TURN, ODD[odd])))
    assert found.shape == (48, 32, 3)
    assert np.array_equal(found, np.rot90(pixels(jpeg), -1))


@pytest.mark.parametrize(
    "orientation",
    [
        entry(0x0112, 2, 2, b"6"),
        entry(0x0112, 3, 1, struct.pack("<H", 9)),
        entry(0x0112, 3, 1, struct.pack("<H", 0)),
        entry(0x0112, 11, 1, struct.pack("<f", 6.0)),
        entry(0x0112, 7, 4, b"\6"),
    ],
)
def test_an_orientation_of_odd_type_or_value_is_none(orientation: bytes) -> None:
    jpeg = encoded(Image.fromarray(COLOURS.astype(np.uint8)), "JPEG")
    assert np.array_equal(pixels(with_exif(jpeg, exif(orientation))), pixels(jpeg))
    assert np.array_equal(pixels(with_exif(jpeg, b"II*\0\xff")), pixels(jpeg))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "packed TIFF", "16 bits"])
def test_orientation_in_every_format(kind: str, orientation: int) -> None:
    values = GENERATOR.integers(0, 256, (4, 7, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "packed TIFF":
        options["compression"] = "tiff_deflate"
    if kind == "16 bits":
        image = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
        values = np.repeat(values[:, :, :1], 3, axis=2)
    tag = Image.Exif()
    tag[0x0112] = orientation
    found = pixels(
        encoded(image, {"16 bits": "PNG"}.get(kind, kind.split()[-1]), exif=tag, **options)
    )
    # The rows and columns that hold the image's top and left side, as the standard lists them.
    stored = values.transpose(1, 0, 2) if orientation >= 5 else values
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    assert np.array_equal(found, stored[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


# --- more than 8 bits ------------------------------------------------------------------------------


def images_of(values: np.ndarray) -> dict[str, bytes | np.ndarray]:
    """The same grey values in every file that holds more than 8 bits, and as arrays."""
    grey = values.astype(np.uint16)
    big = Image.frombytes("I;16B", grey.shape[::-1], grey.astype(">u2").tobytes())
    colours = np.repeat(grey[:, :, None], 3, axis=2)
    return {
        "PNG": encoded(Image.fromarray(grey)),
        "TIFF": encoded(Image.fromarray(grey), "TIFF"),
        "big-endian TIFF": encoded(big, "TIFF"),
        "packed TIFF": encoded(Image.fromarray(grey), "TIFF", compression="tiff_lzw"),
        "32 bits": encoded(Image.fromarray(grey.astype(np.int32)), "TIFF"),
        "array": grey,
        "colour PNG": colour_png(colours),
        "colour array": colours,
    }


@pytest.mark.parametrize("full_scale", [255, 1023, 4095, 16383])
def test_fewer_bits_in_files_of_16(full_scale: int) -> None:
    values = GENERATOR.integers(0, full_scale + 1, (6, 7))
    values[0, 0] = full_scale
    expected = np.rint(values * 255 / full_scale)
    for kind, image in images_of(values).items():
        assert read(image).largest == full_scale, kind
        assert np.abs(pixels(image, full_scale)[:, :, 0] - expected).max() <= 0.5, kind


def test_colours_of_12_bits_with_alpha() -> None:
    values = GENERATOR.integers(0, 4096, (3, 4, 4))
    values[:, :, 3] = 65535
    found = pixels(colour_png(values), 4095)
    assert np.abs(found - values[:, :, :3] * 255 / 4095).max() <= 0.51


def test_images_of_8_bits_have_no_largest_value() -> None:
    assert read(encoded(Image.fromarray(COLOURS.astype(np.uint8)))).largest is None
    assert read(COLOURS.astype(np.uint8)).largest is None


# --- other kinds -----------------------------------------------------------------------------------


def test_first_page_and_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind, options in (("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("MPO", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(pixels(data) - [255, 0, 0]).max() <= 2, kind


def test_other_colour_spaces() -> None:
    lab = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 0, 0, 0]))  # white and black
    assert np.abs(pixels(encoded(lab, "TIFF")) - [[[255] * 3, [0] * 3]]).max() <= 2
    hsv = Image.frombytes("HSV", (2, 1), bytes([0, 255, 255, 170, 255, 255]))  # red and blue
    assert np.array_equal(read(encoded(hsv.convert("RGB"))).image, [[[255, 0, 0], [0, 0, 255]]])


def test_large_images_and_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(Image.new("L", (14, 14)))).size == (14, 14)  # Pillow only warns of it
    with pytest.raises(ValueError, match=r"^decompression bomb \(more than 200 pixels\)$"):
        decode(encoded(Image.new("L", (15, 15))))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
            "HEIC, which Pillow does not read here; ",
        ),
        (
            b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(200),
            "HEIC, which Pillow does not read here; ",
        ),
        (b"\0\0\0\x20ftypisom\0\0\0\0isom" + bytes(200), "not an image (a film)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a Git LFS pointer, not the",
        ),
        (
            b"/annex/objects/SHA256E-s3--1.png\n",
            "a git-annex pointer, not the image; fetch it with",
        ),
        (b"<!DOCTYPE html><p>not found", "not an image (a web page)"),
        (
            b"\xef\xbb\xbf<?xml version='1.0'?><svg/>",
            "SVG, which Pillow does not read here; convert",
        ),
        (
            bytes(128) + b"DICM" + bytes(99),
            "DICOM, which Pillow does not read here; convert it to PNG",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript, which Pillow does not"),
        (b"%PDF-1.7\n", "not an image (a PDF)"),
        (b"cat,1\nEsel,2\n", "not an image (text)"),
    ],
)
def test_foreign_files_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^\S") as error:
        decode(data)
    assert str(error.value).startswith(reason)
