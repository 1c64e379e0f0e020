"""S3 as a pyarrow file system on our own client, for Parquet and for Ray Train's checkpoints.

pyarrow's own S3 knows neither profiles nor path-style addresses apart from endpoints, gives up after
seconds, and pickles the credentials that it is given.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.objects import Entry, at_once
from cwerm.store.s3.bucket import S3Storage

PROOF = ".validate_storage_marker"


class S3Handler(fs.FileSystemHandler):
    """Paths are ``bucket/key``. A folder is there as long as something is in it."""

    def __init__(self, settings: S3 | None = None) -> None:
        self.settings = settings or S3()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Handler) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings)

    def _split(self, path: str) -> tuple[S3Storage, str]:
        bucket, _, key = path.strip("/").partition("/")
        return S3Storage(f"s3://{bucket}", self.settings), key

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return path.rstrip("/")

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        if _is_proof(path):
            return fs.FileInfo(path, fs.FileType.File, size=0)
        storage, key = self._split(path)
        found = storage.stat(key) if key else None
        if found is not None:
            return _file(path, found)
        is_folder = next(storage.walk_keys(key), None) is not None
        return fs.FileInfo(path, fs.FileType.Directory if is_folder else fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        base = selector.base_dir.strip("/")
        storage, folder = self._split(base)
        bucket, start = storage.bucket, len(folder) + 1 if folder else 0
        infos: dict[str, fs.FileInfo] = {}
        found = False
        for entry in storage.walk_keys(folder):
            found = True
            _check_key(entry.path, storage)
            *above, name = entry.path[start:].split("/")
            for depth in range(1, len(above) + 1 if selector.recursive else min(2, len(above) + 1)):
                path = "/".join([base, *above[:depth]])
                infos.setdefault(path, fs.FileInfo(path, fs.FileType.Directory))
            if name and (selector.recursive or not above):
                infos[f"{bucket}/{entry.path}"] = _file(f"{bucket}/{entry.path}", entry)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(f"s3://{base}")
        return list(infos.values())

    def create_dir(self, path: str, recursive: bool) -> None:
        """A bucket has no folders of its own."""

    def delete_dir(self, path: str) -> None:
        storage, folder = self._split(path)
        _delete(storage, storage.walk_keys(folder))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:  # noqa: ARG002
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("deleting all buckets")

    def delete_file(self, path: str) -> None:
        storage, key = self._split(path)
        storage.delete(key)

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("moving objects")

    def copy_file(self, src: str, dest: str) -> None:
        source, key = self._split(src)
        target, new_key = self._split(dest)
        target.write_bytes(new_key, source.read_bytes(key))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        storage, key = self._split(path)
        return pa.BufferReader(storage.read_bytes(key))

    def open_input_file(self, path: str) -> pa.NativeFile:
        storage, key = self._split(path)
        found = storage.stat(key)
        if found is None:
            raise FileNotFoundError(f"s3://{path}")
        return pa.PythonFile(_Ranges(storage, key, found.size, found.tag), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:  # noqa: ARG002
        if _is_proof(path):
            return pa.BufferOutputStream()
        storage, key = self._split(path)
        return pa.PythonFile(_Written(storage, key), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise NotImplementedError("appending to objects")


def _is_proof(path: str) -> bool:
    """Whether Ray Train asks, again and again, if all nodes share this storage; a bucket they do."""
    return path.endswith(f"/{PROOF}")


def _file(path: str, entry: Entry) -> fs.FileInfo:
    return fs.FileInfo(path, fs.FileType.File, size=entry.size, mtime_ns=entry.modified)


def _check_key(key: str, storage: S3Storage) -> None:
    """A key of which no path can be made would be read as that of another object."""
    if any(part in ("", ".", "..") for part in key.removesuffix("/").split("/")):
        raise UserError(
            f"{storage.uri(key)}: '//', '.' and '..' in a key are no path to a file; rename the object"
        )


def _delete(storage: S3Storage, entries: Iterable[Entry]) -> None:
    at_once(storage.delete, [entry.path for entry in entries])


class _Ranges(io.RawIOBase):
    """An object that is read in ranges as they are asked for, all of them of one version."""

    def __init__(self, storage: S3Storage, key: str, size: int, tag: str) -> None:
        self._storage, self._key, self._size, self._tag, self._at = storage, key, size, tag, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = b""
        if length:
            data = self._storage.read_range(self._key, self._at, length, self._tag)
        self._at += length
        return data


class _Written(io.RawIOBase):
    """What is written is kept on this machine and becomes the object when the file is closed."""

    def __init__(self, storage: S3Storage, key: str) -> None:
        self._storage, self._key = storage, key
        self._folder = tempfile.TemporaryDirectory(prefix="cwerm-")
        self._path = Path(self._folder.name, "object")
        self._file = self._path.open("wb")

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.close()
            try:
                self._storage.upload(self._path, self._key)
            finally:
                self._folder.cleanup()

    def __del__(self) -> None:
        """A file that nobody closed is not whole, and becomes no object."""
        self._file.close()
        self._folder.cleanup()
