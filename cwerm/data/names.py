"""What the name of a file tells of its kind: an image, or a side file that is none."""

from __future__ import annotations

IMAGES = frozenset(
    f".{name}"
    for line in (
        "jpg jpeg jpe jfif jif pjpeg mpo jp2 j2k jpx jpc jpf j2c png apng webp gif bmp dib tif tiff",
        "ppm pgm pbm pnm pfm tga vda icb vst ico icns dds pcx psd qoi sgi rgb rgba bw xbm xpm fits",
        "heic heif hif avif avifs jxl svg eps dcm dicom raw dng cr2 cr3 nef arw orf rw2 raf pef",
    )
    for name in line.split()
)
"""Suffixes of images, in lower case, whether they can be read or not."""
ARCHIVES = (
    *(".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".lz4"),
    *(".lzma", ".iso"),
)
_SIDE_SUFFIXES = frozenset(ARCHIVES) | frozenset(
    f".{name}"
    for line in (
        "txt json jsonl ndjson csv tsv xml yaml yml toml ini cfg conf md rst html htm log pdf doc docx",
        "xls xlsx ods odt rtf db sqlite sqlite3 py pyc ipynb sh bat ps1 m r js css lua url lnk webloc",
        "md5 sha1 sha256 sha512 sfv crc par2 sig asc npy npz mat h5 hdf5 pkl pickle pt pth parquet",
        "arrow feather lmdb tfrecord dvc xmp aae thm identifier names data-list part partial crdownload",
        "mp4 mov avi mkv webm m4v mpg mpeg 3gp mts wav mp3 m4a aac flac ogg torrent lock bib tex",
    )
    for name in line.split()
)
_SIDE_NAMES = frozenset(
    name
    for line in (
        "readme license licence copying notice authors changelog changes citation makefile dockerfile",
        "checksum checksums md5 md5sum md5sums sha1sum sha1sums sha256sum sha256sums sha512sum",
        "sha512sums manifest index annotation annotations label labels classes icon",
    )
    for name in line.split()
)
_SIDE_ENDS = ("@synoeastream", "@synoresource")


def suffix(path: str) -> str:
    """The file's last suffix with its dot, in lower case; "" where it has none."""
    name = path.rpartition("/")[2]
    stem, dot, end = name.rpartition(".")
    return f".{end}".lower() if stem and dot and end else ""


def is_side_file(path: str) -> bool:
    """Whether a file among images is, by its name, no image: a text, a table, a checksum."""
    name = path.rpartition("/")[2].lower()
    return (
        suffix(path) in _SIDE_SUFFIXES or name.strip() in _SIDE_NAMES or name.endswith(_SIDE_ENDS)
    )


def kind_of_name(path: str) -> str:
    """A word for files like this one: the suffix, or the name where there is none or it says more."""
    name = path.rpartition("/")[2]
    return name.strip() if suffix(path) in ("", ".db", ".ini") else suffix(path)
