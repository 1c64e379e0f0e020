"""Whether a bucket can hold a storage: each kind of request that commits need is made once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from cwerm.errors import UserError
from cwerm.s3_errors import CHECKSUMS, CONDITIONS

if TYPE_CHECKING:
    from cwerm.s3 import S3Storage

CONTENT = b"cwerm"


def probe(storage: S3Storage) -> None:
    """Write, read, list and remove a small object.

    Raises:
        UserError: the first thing that is refused, or that the server lacks or ignores.
    """
    name = f".write-test-{uuid.uuid4().hex}"
    _try(storage, name, lambda: storage.write_bytes(name, CONTENT))
    try:
        # a missing object is said to be one only to who may list
        _try(storage, name, lambda: next(storage.walk_keys(name), None))
        _try(storage, name, lambda: _read(storage, name))
        _try(storage, name, lambda: _write_once(storage, name), CONDITIONS)
    finally:
        _try(storage, name, lambda: storage.delete(name))


def _try(
    storage: S3Storage, name: str, action: Callable[[], object], lacking: str = CHECKSUMS
) -> None:
    try:
        action()
    except UserError as error:
        reason, _, remedy = str(error).removeprefix(f"{storage.uri(name)}: ").partition("; ")
        if "NotImplemented" in reason or "(501)" in reason:
            remedy = lacking
        raise UserError(
            f"storage: '{storage.root}' can't be written ({reason}); {remedy}"
        ) from None


def _read(storage: S3Storage, name: str) -> None:
    try:
        found = storage.read_bytes(name)
    except FileNotFoundError:
        found = b""
    if found != CONTENT:
        raise UserError("what was written can't be read again; use an S3 server for it")
    if storage.stat(f"{name}-none") is not None:
        raise UserError("what was never written is there; use an S3 server for it")


def _write_once(storage: S3Storage, name: str) -> None:
    once = f"{name}-once"
    try:
        won = [storage.write_bytes(once, text, if_absent=True) for text in (CONTENT, b"2")]
    finally:
        storage.delete(once)
    if won != [True, False]:
        raise UserError(
            f"the server ignores If-None-Match, so that two runs would mix; {CONDITIONS}"
        )
