"""How long an artifact has been worked at, without the time in which its workers had no place.

What a stage takes is to be the same whether others hold the machine meanwhile or not. The clock runs
from the start, stands still while the stage waits for its first worker, and goes on as soon as one is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["WorkClock", "current", "running"]


class WorkClock:
    """Seconds of work since it was made. Its calls may come from any thread, and more often than needed."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._waited = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Until now, what was waited left out."""
        since, now = self._since, time.monotonic()
        return now - self._started - self._waited - (0.0 if since is None else now - since)

    def wait(self) -> None:
        """Stand still from now on: nothing works, for want of a place."""
        if self._since is None:
            self._since = time.monotonic()

    def work(self, for_seconds: float = 0.0) -> None:
        """Go on: something works, and has for so many seconds."""
        since, self._since = self._since, None
        if since is not None:
            self._waited += max(0.0, time.monotonic() - for_seconds - since)


_current: ContextVar[WorkClock | None] = ContextVar("work clock", default=None)


@contextmanager
def running(clock: WorkClock) -> Iterator[None]:
    """Let `current` be this clock meanwhile."""
    token = _current.set(clock)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> WorkClock:
    """The clock of the artifact that is being made, or a new one where none is."""
    return _current.get() or WorkClock()
