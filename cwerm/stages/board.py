"""How far a long computation on a worker has come, shown by a bar at the driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cwerm import console

POLL_SECONDS = 0.5


class _Board:
    def __init__(self) -> None:
        self.done, self.remark = 0.0, ""

    def post(self, done: float, remark: str = "") -> None:
        self.done, self.remark = done, remark

    def read(self) -> tuple[float, str]:
        return self.done, self.remark


@contextmanager
def progress_board(total: int, label: str) -> Iterator[Any]:
    """An actor handle whose ``post.remote(done, remark)`` moves a progress bar here."""
    import ray

    board = ray.remote(_Board).options(num_cpus=0).remote()
    stop = threading.Event()
    with console.progress(total, label) as advance:

        def follow() -> None:
            shown = 0.0
            while not stop.wait(POLL_SECONDS):
                try:
                    done, remark = ray.get(board.read.remote(), timeout=10)
                except ray.exceptions.RayError:
                    return  # the bar only informs; what the worker does is reported elsewhere
                advance(done - shown, remark)
                shown = done

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield board
        finally:
            stop.set()
            follower.join()
            ray.kill(board)
