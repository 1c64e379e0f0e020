"""Whether a bucket can hold a storage: each kind of request that commits need is made once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cwerm.errors import UserError
from cwerm.store.objects import at_once
from cwerm.store.s3.errors import CHECKSUMS, CONDITIONS

if TYPE_CHECKING:
    from cwerm.store.s3.bucket import S3Storage

CONTENT = b"cwerm"


def probe(storage: S3Storage) -> None:
    """Write, read, list and remove a small object.

    Raises:
        UserError: the first thing that is refused, or that the server lacks or ignores.
    """
    name = f".write-test-{uuid.uuid4().hex}"
    _try(storage, lambda: storage.write_bytes(name, CONTENT))
    conditional = "conditional writes", CONDITIONS
    try:
        at_once(
            lambda arguments: _try(storage, *arguments),
            [
                # a missing object is said to be one only to who may list
                (lambda: next(storage.walk_keys(name), None),),
                (lambda: _read(storage, name),),
                (lambda: _missing(storage, f"{name}-none"),),
                (lambda: _write_once(storage, f"{name}-once"), *conditional),
            ],
        )
    except UserError:
        with suppress(UserError):  # what went wrong first is told
            storage.delete(name)
        raise
    _try(storage, lambda: storage.delete(name))


def _try(
    storage: S3Storage,
    action: Callable[[], object],
    feature: str = "checksum headers",
    without: str = CHECKSUMS,
) -> None:
    try:
        action()
    except UserError as error:
        text = str(error)
        if text.startswith(f"{storage.root}/"):
            text = text.partition(": ")[2]
        reason, _, remedy = text.partition("; ")
        if "NotImplemented" in reason or "(501)" in reason:
            reason, remedy = f"the server lacks {feature} {reason[reason.rindex('(') :]}", without
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


def _missing(storage: S3Storage, name: str) -> None:
    if storage.stat(name) is not None:
        raise UserError("what was never written is there; use an S3 server for it")


def _write_once(storage: S3Storage, name: str) -> None:
    won = [storage.write_bytes(name, text, if_absent=True) for text in (CONTENT, b"2")]
    storage.delete(name)
    if won != [True, False]:
        raise UserError(
            f"the server ignores If-None-Match, so that two runs would mix; {CONDITIONS}"
        )
