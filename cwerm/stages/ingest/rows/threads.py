"""Requests to the storage beside the work of the driver, a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
AT_ONCE = 4


class Background:
    """Does what it is given in threads; at most so many things wait, and a failure is raised."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._running: deque[Future[Any]] = deque()

    def do(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Start this, once there is room."""
        while len(self._running) >= AT_ONCE:
            self._running.popleft().result()
        future = self._threads.submit(function, *arguments)
        self._running.append(future)
        return future

    def finish(self) -> None:
        """Wait for all of it."""
        while self._running:
            self._running.popleft().result()
        self._threads.shutdown()


def read_ahead(read: Callable[[Any], T], parts: Iterable[Any]) -> Iterator[T]:
    """What ``read`` gives of each part in turn; the next ones are read meanwhile."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        running: deque[Future[T]] = deque()
        for part in parts:
            running.append(threads.submit(read, part))
            if len(running) >= AT_ONCE:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
