"""S3 and what speaks its language, through boto3: a bucket and a prefix as a `Storage`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cwerm.job.surroundings import S3
from cwerm.store.objects import Entry, Storage, Upload
from cwerm.store.s3 import client as clients
from cwerm.store.s3.errors import explained, skew_seconds
from cwerm.store.s3.settings import described
from cwerm.values.addresses import normal

PART_BYTES = 16 * 2**20  # larger objects go up in parts of this size
MISSING = ("NoSuchKey", "NotFound", "404")
DAMAGED_TRIES = 3  # for content that does not fit its checksum


class S3Storage(Storage):
    """A bucket and prefix.

    Each request waits out an outage of up to `s3_client.PATIENCE_SECONDS`, the first ones of a process
    one of some seconds; a longer one is a `UserError` that names the endpoint. Credentials come from
    where boto3 looks for them, and are never kept here.
    """

    far = True

    def __init__(self, root: str, settings: S3 | None = None) -> None:
        super().__init__(normal(root))
        self.settings = settings or S3()
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        self.bucket, self._prefix = bucket, prefix.strip("/")

    @property
    def client(self) -> Any:
        """The boto3 client."""
        return clients.s3_client(self.settings)

    def check_writable(self) -> None:
        """Try once what commits need.

        Raises:
            UserError: something is refused, or the server lacks it.
        """
        from cwerm.store.s3.probe import probe

        probe(self)

    def clock_skew(self) -> float | None:
        """Seconds by which this machine's clock is ahead of the server's, None where it tells no time."""
        with explained(self.root, self.settings):
            answer = self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        return skew_seconds(answer["ResponseMetadata"]["HTTPHeaders"])

    def reached_by(self) -> str:
        """The server, and which settings lead there."""
        with explained(self.root, self.settings):
            return described(self.client, self.settings)

    def _place(self, path: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._key(path)}

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def read_bytes(self, path: str) -> bytes:
        return self._get(path)

    def read_range(self, path: str, start: int, length: int, tag: str | None = None) -> bytes:
        """``length`` bytes from ``start``; the object must have them.

        Raises:
            UserError: its entity tag is not ``tag``, where one is given: it was written anew.
        """
        condition = {"IfMatch": tag} if tag else {}
        return self._get(path, Range=f"bytes={start}-{start + length - 1}", **condition)

    def _get(self, path: str, **arguments: str) -> bytes:
        from botocore import exceptions

        broken = (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.IncompleteReadError,
            exceptions.FlexibleChecksumError,
        )
        damaged = 0
        with explained(self.uri(path), self.settings), clients.one_patience() as wait:
            while True:
                try:
                    answer = self.client.get_object(**self._place(path), **arguments)
                except exceptions.ClientError as error:
                    if error.response["Error"]["Code"] in MISSING:
                        raise FileNotFoundError(self.uri(path)) from None
                    raise
                try:
                    return answer["Body"].read()
                except (
                    broken
                ) as error:  # boto3 repeats a request, but not the reading of its answer
                    damaged += isinstance(error, exceptions.FlexibleChecksumError)
                    if damaged == DAMAGED_TRIES or not wait(error):
                        raise

    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        from botocore.exceptions import ClientError

        if not if_absent and len(data) > PART_BYTES:
            self._upload(lambda: io.BytesIO(data), path)
            return True
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with explained(self.uri(path), self.settings):
            try:
                self.client.put_object(**self._place(path), Body=data, **condition)
                return True
            except ClientError as error:
                if not if_absent or error.response["Error"]["Code"] != "PreconditionFailed":
                    raise
                retried = error.response["ResponseMetadata"].get("RetryAttempts", 0)
        # what a repeated request finds there may be the work of its own first try
        return bool(retried) and self._holds(path, data)

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self.read_bytes(path) == data
        except FileNotFoundError:
            return False

    def upload(self, source: Path, path: str) -> None:
        self._upload(lambda: source.open("rb"), path)

    def _upload(self, open_: Callable[[], BinaryIO], path: str) -> None:
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            use_threads=clients.in_worker(),  # which Ctrl-C would wait for
        )

        def send() -> None:
            with open_() as file:
                self.client.upload_fileobj(file, **self._place(path), Config=config)

        with explained(self.uri(path), self.settings):
            try:
                send()
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise
                send()  # the request to complete it was repeated, or the server forgot the parts

    def stat(self, path: str) -> Entry | None:
        from botocore.exceptions import ClientError

        with explained(self.uri(path), self.settings):
            try:
                answer = self.client.head_object(**self._place(path))
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in MISSING:
                    return None
                if code in ("400", "403"):  # the answer to HEAD has no room for a reason
                    self.client.get_object(**self._place(path), Range="bytes=0-0")
                raise
        modified = _nanoseconds(answer["LastModified"])
        return Entry(path, int(answer["ContentLength"]), modified, answer.get("ETag", ""))

    def walk(self, folder: str, start: str = "") -> Iterator[Entry]:
        return (entry for entry in self.walk_keys(folder, start) if not entry.path.endswith("/"))

    def walk_keys(self, folder: str, start: str = "") -> Iterator[Entry]:
        """As `walk`, with the empty objects by which some programs mark folders, named ``.../``."""
        before = len(self._key(""))
        for page in self._pages("list_objects_v2", folder, start):
            for found in page.get("Contents", []):
                modified = _nanoseconds(found["LastModified"])
                tag = found.get("ETag", "")
                yield Entry(found["Key"][before:], int(found["Size"]), modified, tag)

    def delete(self, path: str) -> None:
        with explained(self.uri(path), self.settings):
            self.client.delete_object(**self._place(path))

    def remove_empty_folders(self, folder: str) -> None:
        """A bucket has no folders."""

    def unfinished_uploads(self, folder: str) -> Iterator[Upload]:
        start = len(self._key(""))
        for page in self._pages("list_multipart_uploads", folder):
            for found in page.get("Uploads", []):
                path, started = found["Key"][start:], _nanoseconds(found["Initiated"])
                parts = list(self._parts(path, found["UploadId"]))
                size = sum(int(part["Size"]) for part in parts)
                changed = [_nanoseconds(part["LastModified"]) for part in parts]
                yield Upload(Entry(path, size, max([started, *changed])), found["UploadId"])

    def abort_upload(self, upload: Upload) -> None:
        from botocore.exceptions import ClientError

        place = self._place(upload.entry.path)
        with explained(self.uri(upload.entry.path), self.settings):
            try:
                self.client.abort_multipart_upload(**place, UploadId=upload.identity)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":  # it is gone already
                    raise

    def _parts(self, path: str, identity: str) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import ClientError

        with explained(self.uri(path), self.settings):
            try:
                pages = self.client.get_paginator("list_parts")
                for page in pages.paginate(**self._place(path), UploadId=identity):
                    yield from page.get("Parts", [])
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise

    def _pages(self, operation: str, folder: str, start: str = "") -> Iterator[dict[str, Any]]:
        prefix = self._key(f"{folder}/{start}" if folder else start)
        with explained(self.uri(folder), self.settings):
            paginator = self.client.get_paginator(operation)
        pages = iter(paginator.paginate(Bucket=self.bucket, Prefix=prefix))
        while True:
            with explained(self.uri(folder), self.settings):
                page = next(pages, None)
            if page is None:
                return
            yield page


def _nanoseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1000) * 1_000_000
