"""Requests to a storage that go on beside the work: one that is far away answers late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

__all__ = ["Later", "WriteBehind", "read_ahead"]

AT_ONCE = 4  # requests, whose data are held until they are done
S = TypeVar("S")
T = TypeVar("T")


class Later(Generic[T]):
    """What will be known once some writes are done."""

    def __init__(self, known: Callable[[], T]) -> None:
        self._known = known

    def result(self) -> T:
        """Wait for it; raises what went wrong."""
        return self._known()


class WriteBehind:
    """Writes in some threads; who asks for more at once waits for the first, and gets its failure."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "write")
        self._running = deque[Future[Any]]()

    def write(self, write: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin to write, once there is room."""
        while len(self._running) >= AT_ONCE:
            self._running.popleft().result()
        begun = self._threads.submit(write, *arguments)
        self._running.append(begun)
        return begun

    def finish(self) -> None:
        """Wait for all of it."""
        while self._running:
            self._running.popleft().result()
        self._threads.shutdown()


def read_ahead(read: Callable[[S], T], parts: Iterable[S]) -> Iterator[T]:
    """What ``read`` gives of each part in turn; the next ones are read meanwhile."""
    with ThreadPoolExecutor(AT_ONCE, "read") as threads:
        running = deque[Future[T]]()
        for part in parts:
            running.append(threads.submit(read, part))
            if len(running) >= AT_ONCE:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
