"""How a command ends when it is told to, by Ctrl-C, SIGTERM or SIGHUP: within seconds, whatever it does.

The signal raises ``KeyboardInterrupt``, as Ctrl-C always does, and what was begun is given up in order.
Python runs no handler while C code waits, for a server that is silent, say; so a thread sees to it that
the process, and all that it started, ends in time.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import psutil

from cwerm.errors import shown

SECONDS = 3.5  # for an orderly end; a moment is left to end the rest, of the five that one may wait
KILL_SECONDS = 0.8
_WORDS = {
    "SIGINT": "interrupted",
    "SIGTERM": "told to end (SIGTERM)",
    "SIGHUP": "told to end (SIGHUP: its terminal has gone)",
}
_NUMBERS = {int(getattr(signal, name)): name for name in _WORDS if hasattr(signal, name)}
_received: int | None = None
_raised = _told = False


def listen() -> None:
    """End the process from now on as this module says; signals that are ignored stay so."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    threading.Thread(target=_watch, args=(reader, os.dup(2)), daemon=True).start()
    atexit.register(_leave)  # first, so that it is the last to run


def exit_code() -> int | None:
    """The exit code of a process that was told to end, as a shell gives it; None where it was not."""
    return None if _received is None else 128 + _received


def tell() -> None:
    """Say in a line that the command was interrupted, once."""
    global _told
    if _told:
        return
    _told = _received is not None
    word = _WORDS[_NUMBERS[_received or signal.SIGINT]]
    say(f"{word}; run the same command again to go on from here")


def say(line: str) -> None:
    """Print a line on standard error, where there is somebody to read it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"cwerm: {shown(' '.join(line.split()))}\n")
        sys.stderr.flush()


def open_standard_streams() -> None:
    """Give a process that was started without one of them the null device, or standard output for errors.

    Otherwise the next file that is opened takes the number, and what is printed goes into that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            opened = os.dup(1) if number == 2 else os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _interrupt(number: int, frame: Any) -> None:
    global _raised, _received
    if _raised:  # it ends already; the thread looks after the impatient
        return
    _raised, _received = True, number
    sys.unraisablehook = lambda _: None  # where nobody can catch it
    raise KeyboardInterrupt


def _leave() -> None:
    """Python ends by SIGINT instead where the interruption fell into an import, though it was caught."""
    if _received is not None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + _received)


def _watch(reader: int, kept: int) -> None:
    global _received
    while _received is None:
        _received = _next(reader, None)
    _next(reader, time.monotonic() + SECONDS)  # a second signal means at once
    with suppress(OSError):
        os.dup2(kept, 2)  # while Ray starts, nothing that is said there is shown
    tell()
    end = time.monotonic() + KILL_SECONDS  # those that are killed may just be starting others
    while (family := psutil.Process().children(recursive=True)) and time.monotonic() < end:
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=0.1)
    os._exit(128 + _received)


def _next(reader: int, end: float | None) -> int | None:
    """The next signal that ends a command, None where there is none until then."""
    while True:
        if end is not None:
            left = end - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                return None
        (number,) = os.read(reader, 1)
        if number in _NUMBERS:
            return number


def _forget() -> None:
    """A process that is forked off is ended by signals as any other."""
    signal.set_wakeup_fd(-1)
    for number in _NUMBERS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)
