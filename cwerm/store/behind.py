"""Writes that go on while the next part is worked on: a storage that is far away answers late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Later", "WriteBehind"]

AT_ONCE = 4  # writes, whose data are held until they are done
T = TypeVar("T")


class Later(Generic[T]):
    """What will be known once some writes are done."""

    def __init__(self, known: Callable[[], T]) -> None:
        self._known = known

    def result(self) -> T:
        """Wait for it; raises what went wrong."""
        return self._known()


class WriteBehind:
    """Some threads that write; who asks for more at once waits."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "write")
        self._room = threading.Semaphore(AT_ONCE)

    def write(self, write: Callable[[], T]) -> Future[T]:
        """Begin to write, once there is room."""
        self._room.acquire()
        begun = self._threads.submit(write)
        begun.add_done_callback(lambda _: self._room.release())
        return begun
