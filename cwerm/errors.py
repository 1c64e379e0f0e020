"""The one error a user can cause."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in a job, a file or the surroundings: one line that names it and the remedy."""


FULL = "storage: no space is left at '{}'; free some, and run again to go on from here"


def is_full(error: BaseException) -> bool:
    """Whether a disk or its quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def blame(key: str) -> Iterator[None]:
    """Turn a ``ValueError`` of the algorithms into a `UserError` that names the job's ``key``."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'ratio'?``, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
