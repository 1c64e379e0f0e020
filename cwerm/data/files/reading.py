"""Reading what a listing named: a passing error is waited out, a lasting one names the file."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cwerm.errors import UserError

T = TypeVar("T")
# Too many open files, a disk or a network that hesitates: these say nothing about the file.
PASSING = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EBUSY),
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
WAITS = (0.1, 0.4, 1.0, 2.5)  # seconds between tries


def gone(where: str) -> str:
    """What to say of a file that vanished after it was listed."""
    return (
        f"data.source: '{where}' was there when its folder was listed, and is gone; let nothing write "
        "there, and run again"
    )


def patiently(read: Callable[[], T], where: str) -> T:
    """What ``read`` gives, tried again after a passing error.

    Raises:
        UserError: the file at ``where`` is gone, may not be read, or still can't be after some seconds.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except FileNotFoundError:
            raise UserError(gone(where)) from None
        except OSError as error:
            if wait is None or error.errno not in PASSING:
                reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
                raise UserError(
                    f"data.source: '{where}' can't be read ({reason}); check the file, its permissions "
                    "and its disk, and run again"
                ) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def patiently_each(read: Callable[[int], Iterator[T]], start: int) -> Iterator[T]:
    """All that ``read(start)`` gives; after a passing error it goes on with the first that is missing.

    An error that lasts, or a `UserError` made of one, is raised as it came.
    """
    waits = iter(WAITS)
    while True:
        try:
            for item in read(start):
                yield item
                start, waits = start + 1, iter(WAITS)
            return
        except (OSError, UserError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            wait = next(waits, None)
            if wait is None or not isinstance(cause, OSError) or cause.errno not in PASSING:
                raise
            time.sleep(wait)
