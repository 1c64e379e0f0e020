"""What a run shows of work that is done elsewhere: a worker's progress, and nodes that are lost."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from cwerm.store.claims import work_clock
from cwerm.terminal import console

POLL_SECONDS = 0.5
NODES_POLL_SECONDS = 2.0
ANSWER_SECONDS = 10


class _Board:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.done, self.remark = 0.0, ""
        self.notes: list[str] = []
        self.handle: Any = None
        self.reserved: list[Any] = []
        self.placed: float | None = None

    def post(self, done: float, remark: str = "") -> None:
        self.done, self.remark = done, remark

    def note(self, text: str) -> None:
        self.notes.append(text)

    def keep(self, handle: Any) -> None:
        self.handle = handle

    def kept(self) -> Any:
        return self.handle

    def reserve(self, group: Any) -> None:
        self.reserved.append(group)
        self.placed = time.monotonic()

    def release(self) -> list[Any]:
        groups, self.reserved, self.placed = self.reserved, [], None
        return groups

    def seconds_in_place(self) -> float | None:
        return None if self.placed is None else time.monotonic() - self.placed

    def read(self) -> tuple[float, str, list[str]]:
        notes, self.notes = self.notes, []
        return self.done, self.remark, notes


@contextmanager
def progress_board(total: int, label: str, name: str | None = None) -> Iterator[Any]:
    """An actor handle: ``post.remote(done, remark)`` moves a progress bar, ``note.remote(text)`` prints.
    ``keep.remote(handle)`` keeps an actor's handle for whoever asks with ``kept.remote()``, and
    ``reserve.remote(group)`` a placement group until ``release.remote()``; ``seconds_in_place.remote()``
    tells since when the last of them has had its workers, None where there is none.

    With a ``name``, whoever can't be given the handle finds the actor by it. The boards that have none are
    one actor for each thread, cleared for each board: starting a process costs more than all that it is told.
    """
    import ray

    board = _start_board(name) if name else _shared_board()
    shown = 0.0
    with console.progress(total, label) as advance:

        def follow() -> None:
            nonlocal shown
            done, remark, notes = ray.get(board.read.remote(), timeout=ANSWER_SECONDS)
            for note in notes:
                console.note(note)
            advance(done - shown, remark)
            shown = done

        try:
            with _repeated(follow, POLL_SECONDS):
                yield board
        finally:
            if name:
                ray.kill(board)


def seldom(board: Any, total: int) -> Callable[[int], None]:
    """What a worker calls with how much is done, up to ``total``; it posts no more often than is looked."""
    posted = -math.inf

    def post(done: int) -> None:
        nonlocal posted
        now = time.monotonic()
        if done >= total or now - posted >= POLL_SECONDS:
            posted = now
            board.post.remote(done)

    return post


@contextmanager
def clock_waits(board: Any) -> Iterator[None]:
    """The clock of the artifact stands still until workers have a place, of which the board is told."""
    import ray

    clock = work_clock.current()
    clock.wait()

    def look() -> None:
        seconds = ray.get(board.seconds_in_place.remote(), timeout=ANSWER_SECONDS)
        if seconds is not None:
            clock.work(seconds)

    try:
        with _repeated(look, POLL_SECONDS):
            yield
    finally:
        clock.work()


def _shared_board() -> Any:
    import ray

    context = ray.get_runtime_context()
    thread = context.get_job_id(), context.get_node_id(), threading.get_ident()
    try:
        board = _board_of(*thread)
        ray.get(board.clear.remote())
    except ray.exceptions.RayActorError:
        _board_of.cache_clear()
        board = _board_of(*thread)
    return board


@lru_cache(maxsize=1)
def _board_of(job: str, node: str, thread: int) -> Any:
    del (
        job,
        node,
        thread,
    )  # they tell boards apart, and what is kept of an earlier session is not taken
    return _start_board(None)


def _start_board(name: str | None) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # strictly here: a busy node would pass it on to another one, and it would be lost with that
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here, name=name).remote()


@contextmanager
def watched_nodes() -> Iterator[None]:
    """Print which nodes of the cluster are lost, or join, while it works."""
    known: dict[str, str] = {}

    def compare() -> None:
        nonlocal known
        before, known = known, _living_nodes()
        if not before:
            return  # the first look
        for node in before.keys() - known.keys():
            console.note(f"lost node {before[node]}")
        for node in known.keys() - before.keys():
            console.note(f"node {known[node]} joined")

    with _repeated(compare, NODES_POLL_SECONDS):
        yield


def _living_nodes() -> dict[str, str]:
    import ray

    if not ray.is_initialized():
        return {}
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


@contextmanager
def _repeated(function: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call ``function`` again and again in a thread, and once more at the end."""
    import ray

    stop = threading.Event()

    def repeat() -> None:
        ended = False
        while not ended:
            ended = stop.wait(seconds)
            try:
                function()
            except ray.exceptions.GetTimeoutError:
                continue  # a busy node; the next look will tell
            except ray.exceptions.RayError:
                return  # this only informs; what goes wrong is reported elsewhere

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
