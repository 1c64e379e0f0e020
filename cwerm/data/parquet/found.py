"""Which files of a listing are the Parquet files of the source, if it is made of such."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.names import ARCHIVES, IMAGES, is_side_file, suffix
from cwerm.data.parquet.names import has_parquet_name, is_left_by_writers
from cwerm.errors import UserError, shown
from cwerm.store.plain_types import open_plain
from cwerm.store.storage import filesystem

TABLES = (".txt", ".xlsx", ".xls", ".ods")
PARQUET_BYTES = (b"PAR1", b"PARE")  # the second begins files with an encrypted footer
_ARCHIVE_BYTES = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ"),
    b"\x28\xb5\x2f\xfd",
)
_TAR_AT = 257  # where the word "ustar" stands


def parquet_files(listing: Listing, uri: str, image_column: str) -> tuple[FoundFile, ...]:
    """The Parquet files, by name or else by content; none where the source is a folder of images.

    Args:
        listing: of the source; a single file is listed below its parent.
        uri: of the source.
        image_column: the column that such files must have, where there are class folders as well.

    Raises:
        UserError: the source is one file of another kind.
    """
    if listing.uri != uri.rstrip("/"):
        return (_single(listing),)
    named = tuple(file for file in listing.files if has_parquet_name(file.path))
    images = any(suffix(file.path) in IMAGES for file in listing.files)
    if images and named and not _any_has_column(listing, named, image_column):
        return ()  # side files of the class folders: captions, embeddings
    if named or images:
        return named
    others = [f for f in listing.files if not is_left_by_writers(f.path) and not f.problem]
    unknown = tuple(file for file in others if not is_side_file(file.path))
    is_parquet = bool(unknown) and first_bytes(listing, unknown[0], 4) in PARQUET_BYTES
    return unknown if is_parquet else ()


def _single(listing: Listing) -> FoundFile:
    (file,) = listing.files
    beginning = first_bytes(listing, file, _TAR_AT + 5)
    if has_parquet_name(file.path) and not beginning.startswith(_ARCHIVE_BYTES):
        return file  # what is wrong with it is told where it is read
    if beginning[:4] in PARQUET_BYTES:
        return file
    where = f"data.source: '{shown(f'{listing.uri}/{file.path}')}'"
    is_archive = file.path.lower().endswith(ARCHIVES) or beginning[_TAR_AT:] == b"ustar"
    if is_archive or beginning.startswith(_ARCHIVE_BYTES):
        raise UserError(f"{where} is an archive; unpack it and give the folder")
    if suffix(file.path) in IMAGES:
        raise UserError(f"{where} is one image; give the folder that holds the class folders")
    if suffix(file.path) in TABLES:
        raise UserError(
            f"{where} is no table that is read; save it as CSV with the columns path and label, or give "
            "the folder with the class folders"
        )
    raise UserError(
        f"{where} is no Parquet file; give a folder of class folders, a Parquet file or a folder of "
        "Parquet files"
    )


def first_bytes(listing: Listing, file: FoundFile, count: int) -> bytes:
    """Up to ``count`` bytes of the file's beginning; b"" of one that can't be read."""
    system, root = filesystem(listing.uri, listing.s3)
    try:
        with system.open_input_file(f"{root}/{file.path}") as handle:
            return bytes(handle.read(count))
    except OSError:
        return b""


def _any_has_column(listing: Listing, files: tuple[FoundFile, ...], column: str) -> bool:
    system, root = filesystem(listing.uri, listing.s3)

    def has(file: FoundFile) -> bool:
        try:
            with system.open_input_file(f"{root}/{file.path}") as handle:
                return column in open_plain(handle, file.path)[0].schema_arrow.names
        except UserError:
            return True  # which says what is wrong when it is opened
        except (pa.ArrowException, OSError):
            return False

    with ThreadPoolExecutor(16) as pool:
        return any(pool.map(has, files))
