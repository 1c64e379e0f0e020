"""URIs to files: one factory for local folders and ``s3://`` buckets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.local import LocalStorage
from cwerm.store.objects import Entry, Storage, at_once, parse_mapping
from cwerm.store.s3.bucket import S3Storage
from cwerm.store.s3.client import hurry
from cwerm.values.addresses import local

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = [
    "Entry",
    "LocalStorage",
    "S3Storage",
    "Storage",
    "at_once",
    "fetch",
    "filesystem",
    "hurry",
    "local_path",
    "open_storage",
    "parse_mapping",
]


def open_storage(uri: str, s3: S3 | None = None) -> Storage:
    """The storage at a local path or ``s3://bucket/prefix``.

    Without the settings ``s3``, the standard AWS variables and files alone say how to reach a bucket.

    Raises:
        UserError: the scheme is unknown, or an ``s3://`` address holds more than bucket and prefix.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        return S3Storage(uri, s3)
    if scheme in ("", "file"):
        return LocalStorage(str(local_path(uri)))
    raise UserError(
        f"storage: unknown scheme '{scheme}' in '{uri}'; use a path or s3://bucket/prefix"
    )


def filesystem(uri: str, s3: S3 | None = None) -> tuple[FileSystem, str]:
    """The pyarrow file system of a local path or ``s3://`` URI, and the path within it.

    That of a bucket is ours: it pickles without credentials, and waits out a short outage.

    Raises:
        UserError: as `open_storage`.
    """
    from pyarrow import fs

    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        from cwerm.store.s3.files import S3Handler

        root = S3Storage(uri, s3).root
        return fs.PyFileSystem(S3Handler(s3)), root.removeprefix("s3://")
    if scheme in ("", "file"):
        return fs.LocalFileSystem(), str(local_path(uri))
    raise UserError(f"{uri}: unknown scheme '{scheme}'; use a local path or s3://bucket/prefix")


def local_path(uri: str) -> Path:
    """The absolute local path of a path or ``file://`` URI."""
    return Path(local(uri)).expanduser().absolute()


def fetch(uri: str, folder: Path, s3: S3 | None = None) -> Path:
    """A local copy of the file at ``uri``: itself where it is local, else downloaded to ``folder``."""
    if urlsplit(uri).scheme != "s3":
        return local_path(uri)
    parent, _, name = uri.rpartition("/")
    target = folder / name
    try:
        target.write_bytes(open_storage(parent, s3).read_bytes(name))
    except FileNotFoundError:
        raise UserError(f"{uri}: no such object; check the bucket and the key") from None
    return target
