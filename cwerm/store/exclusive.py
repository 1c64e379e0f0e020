"""Give a finished file its name, unless one of that name is there: what a hard link does at once.

Some file systems have no hard links (exFAT, SMB, many in user space). Linux can rename without replacing
on most of those. Where that fails too, a folder that stands for the name is held for the moment of the
rename: one process can make it, and readers see the whole file or none as before.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from pathlib import Path

# Hard links are not offered here, or not allowed, or used up.
NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK,
            errno.EINVAL, errno.EXDEV}  # fmt: skip
HELD_SECONDS = 30.0  # a holder that takes longer counts as dead
_AT_FDCWD, _NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


def give_name(partial: Path, target: Path) -> bool:
    """Let ``target`` be the file ``partial``; False where something of that name is there.

    ``partial`` may be gone or stay.
    """
    try:
        os.link(partial, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    done = _rename_without_replacing(partial, target)
    return _rename_while_held(partial, target) if done is None else done


def _rename_without_replacing(partial: Path, target: Path) -> bool | None:
    """As `give_name`; None where the system or the file system can't."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return None
    names = os.fsencode(partial), os.fsencode(target)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    if code in NO_LINKS:
        return None
    raise OSError(code, os.strerror(code), str(partial), None, str(target))


def _rename_while_held(partial: Path, target: Path) -> bool:
    held = target.with_name(f".{target.name}.held")
    seen: tuple[int, float] | None = None
    while not target.exists():
        try:
            held.mkdir()
        except FileExistsError:
            seen = _wait(held, seen)
            continue
        try:
            if target.exists():
                return False
            partial.replace(target)
            return True
        finally:
            with suppress(FileNotFoundError):
                held.rmdir()
    return False


def _wait(held: Path, seen: tuple[int, float] | None) -> tuple[int, float] | None:
    """Wait a moment for whoever holds the name, and let go of one who has held it too long."""
    time.sleep(0.02)
    try:
        holder = held.stat().st_ctime_ns
    except FileNotFoundError:
        return None
    if seen is None or seen[0] != holder:
        return holder, time.monotonic()
    if time.monotonic() - seen[1] > HELD_SECONDS:
        with suppress(FileNotFoundError):
            held.rmdir()
        return None
    return seen
