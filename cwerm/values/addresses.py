"""Addresses as people write them, in the one form that the rest of cwerm knows."""

from __future__ import annotations

import re
from urllib.parse import unquote

from cwerm.errors import UserError


def normal(uri: str) -> str:
    """The address with its scheme in small letters; anything but ``s3://`` and ``file:`` as it is.

    Raises:
        UserError: an ``s3:`` address that names no bucket, or holds more than bucket and prefix.
    """
    scheme = _scheme(uri)
    if scheme == "file":
        return f"file:{uri[5:]}"
    if scheme != "s3":
        return uri
    if not uri[3:].strip("/"):
        raise UserError(f"'{uri}' names no bucket; write s3://bucket/prefix")
    if not uri[3:].startswith("//"):
        raise UserError("an s3:// address is written s3://bucket/prefix, with two slashes")
    bucket, _, prefix = uri[5:].partition("/")
    if "@" in bucket or "?" in uri or "#" in uri:
        # the rest may be a password, and is not repeated
        raise UserError(
            "an s3:// address is s3://bucket/prefix and no more, without '@', '?' and '#'; give "
            "credentials in the standard AWS variables or files, and other settings in the job's "
            "section s3"
        )
    if not bucket:
        raise UserError(f"'{uri}' names no bucket; write s3://bucket/prefix")
    return f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"


def local(uri: str) -> str:
    """The path of a local path or a ``file:`` URI, in which %20 is a space and the host is this one."""
    if _scheme(uri) != "file":
        return uri
    path = uri[5:]
    if path.startswith("//"):
        path = path[2:]
        if path.lower().startswith("localhost/"):
            path = path[len("localhost") :]
    return unquote(path)


def _scheme(uri: str) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", uri)
    return found.group(1).lower() if found else ""
