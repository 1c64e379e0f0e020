"""What bytes are that Pillow does not open as an image: a short reason, with a remedy where there is one."""

from __future__ import annotations

_STARTS = {
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "gzipped data",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1a\x45\xdf\xa3": "a Matroska or WebM film",
    b"PAR1": "Parquet",
    b"\x93NUMPY": "a NumPy array",
    b"FUJIFILMCCD-RAW": "a camera's raw file",
}
_BRANDS = {
    "HEIC": ("heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1"),
    "AVIF": ("avif", "avis"),
    "a camera's raw file": ("crx ",),
}


def foreign(data: bytes) -> str:
    """The reason why ``data`` is no image that can be read."""
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the image; fetch it with 'git lfs pull'"
    if len(data) < 1000 and b"annex/objects/" in data:
        return "a git-annex pointer, not the image; fetch it with 'git annex get'"
    kind = _kind(data)
    if kind in ("HEIC", "AVIF", "JPEG XL", "SVG", "DICOM", "PostScript", "a camera's raw file"):
        return f"{kind}, which Pillow does not read here; convert it to PNG or JPEG"
    return f"not an image ({kind})" if kind else "not an image"


def _kind(data: bytes) -> str:
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1")
        if b"avif" in data[8:64]:
            return "AVIF"
        return next((kind for kind, brands in _BRANDS.items() if brand in brands), "a film")
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[:4] == b"RIFF" and data[8:12] in (b"AVI ", b"WAVE"):
        return "a film" if data[8:12] == b"AVI " else "sound"
    start = data[:1000].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return ""
    return "text" if all(letter.isprintable() or letter in "\r\n\t" for letter in text) else ""
