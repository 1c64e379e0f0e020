"""The one error a user can cause."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in a job, a file or the surroundings: one line that names it and the remedy."""


_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(name: str) -> str:
    """A file's name as it can be printed and stored: bytes that are no UTF-8, and what steers a
    terminal or breaks the line, are written as escapes.
    """
    return _STEERING.sub(_escaped, name)


def _escaped(found: re.Match[str]) -> str:
    letter = found.group()
    is_byte = "\udc80" <= letter <= "\udcff"
    return f"\\x{ord(letter) - 0xDC00:02x}" if is_byte else letter.encode("unicode_escape").decode()


FULL = "storage: no space is left at '{}'; free some, and run again to go on from here"


def is_full(error: BaseException) -> bool:
    """Whether a disk or its quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def blame(key: str, class_names: Sequence[str] = ()) -> Iterator[None]:
    """Turn a ``ValueError`` of the algorithms into a `UserError` that names the job's ``key``.

    The algorithms know classes by number; with ``class_names`` the message has their names.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        text = str(error)
        if class_names:
            text = re.sub(r"\bclass (\d+)\b", lambda m: f"class '{class_names[int(m[1])]}'", text)
        raise UserError(f"{key}: {text}") from error


@contextmanager
def renaming(key: str, name: str) -> Iterator[None]:
    """Name what the user gave in another way, in a `UserError` that tells of ``key``."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(key, name)) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'ratio'?``, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
