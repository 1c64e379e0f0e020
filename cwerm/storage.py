"""URIs to files: one factory for local folders and ``s3://`` buckets.

`Storage` holds whole objects by relative path. A write is atomic: a reader sees all of it or nothing,
and ``if_absent`` lets exactly one of several writers win.
"""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cwerm.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_SECONDS = 5


def filesystem(uri: str) -> tuple[FileSystem, str]:
    """The pyarrow file system of a local path or ``s3://`` URI, and the path within it."""
    from pyarrow import fs

    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        return fs.FileSystem.from_uri(uri)
    if scheme in ("", "file"):
        return fs.LocalFileSystem(), str(local_path(uri))
    raise UserError(f"{uri}: unknown scheme '{scheme}'; use a local path or s3://bucket/prefix")


def local_path(uri: str) -> Path:
    """The absolute local path of a path or ``file://`` URI."""
    return Path(uri.removeprefix("file://")).expanduser().absolute()


def open_storage(uri: str) -> Storage:
    """The storage at a local path or ``s3://bucket/prefix``.

    Raises:
        UserError: the scheme is unknown.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        return S3Storage(uri)
    if scheme in ("", "file"):
        return LocalStorage(str(local_path(uri)))
    raise UserError(f"storage: unknown scheme '{scheme}' in '{uri}'; use a path or s3://bucket")


def fetch(uri: str, folder: Path) -> Path:
    """A local copy of the file at ``uri``: itself where it is local, else downloaded to ``folder``."""
    if urlsplit(uri).scheme != "s3":
        return local_path(uri)
    parent, _, name = uri.rpartition("/")
    target = folder / name
    try:
        target.write_bytes(open_storage(parent).read_bytes(name))
    except FileNotFoundError:
        raise UserError(f"{uri}: no such object; check the bucket and the key") from None
    return target


class Storage(ABC):
    """Objects by relative path below a root; picklable, so that workers open their own."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def uri(self, path: str) -> str:
        """The address of ``path`` for people and other tools."""
        return f"{self.root}/{path}"

    def check_writable(self) -> None:
        """Write and remove a small object.

        Raises:
            UserError: the storage can't be written.
        """
        probe = f".write-test-{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"")
            self.delete(probe)
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(
                f"storage: '{self.root}' can't be written ({reason}); "
                "check that it exists and that you may write there, or choose another with --storage"
            ) from error

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """The object's content; ``FileNotFoundError`` where there is none."""

    @abstractmethod
    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the object in one piece; with ``if_absent``, False where it existed already."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Copy a local file to ``path``."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """The object's size in bytes, None where there is none."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove one object, if it is there."""


class LocalStorage(Storage):
    """A folder; writes go to a temporary name first and are then linked or renamed."""

    def _path(self, path: str) -> Path:
        return Path(self.root, path)

    def read_bytes(self, path: str) -> bytes:
        return self._path(path).read_bytes()

    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not if_absent:
                partial.replace(target)
                return True
            try:
                os.link(partial, target)  # unlike a rename, fails where the target exists
            except FileExistsError:
                return False
            return True
        finally:
            partial.unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        shutil.copyfile(source, partial)
        partial.replace(target)

    def size(self, path: str) -> int | None:
        try:
            return self._path(path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def delete(self, path: str) -> None:
        self._path(path).unlink(missing_ok=True)


class S3Storage(Storage):
    """A bucket and prefix, through boto3 (which reads the standard AWS variables and profiles)."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        parts = urlsplit(root)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._client: Any = None
        self._hasty = False

    def check_writable(self) -> None:
        hasty = S3Storage(self.root)  # an endpoint that is not there should be known in seconds
        hasty._hasty = True
        super(S3Storage, hasty).check_writable()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # clients hold sockets and do not pickle

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            attempts, read_timeout = (2, 10) if self._hasty else (8, 60)
            config = Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=read_timeout,
                retries={"max_attempts": attempts, "mode": "standard"},
            )
            # a session of its own: the shared one keeps the credentials that it saw first
            self._client = boto3.session.Session().client("s3", config=config)
        return self._client

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def read_bytes(self, path: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            answer = self.client.get_object(Bucket=self._bucket, Key=self._key(path))
            return answer["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise FileNotFoundError(self.uri(path)) from None
            raise

    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            self.client.put_object(Bucket=self._bucket, Key=self._key(path), Body=data, **condition)
            return True
        except ClientError as error:
            if if_absent and error.response["Error"]["Code"] in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
            ):
                return False
            raise

    def upload(self, source: Path, path: str) -> None:
        self.client.upload_file(str(source), self._bucket, self._key(path))

    def size(self, path: str) -> int | None:
        from botocore.exceptions import ClientError

        try:
            answer = self.client.head_object(Bucket=self._bucket, Key=self._key(path))
            return int(answer["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NotFound", "404"):
                return None
            raise

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self._bucket, Key=self._key(path))
