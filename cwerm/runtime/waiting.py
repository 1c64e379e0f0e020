"""Waiting for what the cluster has lost: said every half minute, and not for ever."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.asked import Run
from cwerm.runtime.capacity import Node, Request
from cwerm.store.claims import work_clock
from cwerm.terminal import console

TELL_SECONDS = 30.0
LOOK_SECONDS = 1.0

T = TypeVar("T")


class Patience:
    """Says what a stage waits for, every 30 seconds, and ends it after ``resources.wait_minutes``."""

    def __init__(self, run: Run, stage: str) -> None:
        self.stage, self.minutes = stage, run.resources.wait_minutes
        self._since: float | None = None
        self._told = -math.inf

    def look(self, missing: str | None) -> None:
        """What is missing now; None where nothing is, which ends the waiting.

        Raises:
            UserError: something has been missing for too long.
        """
        now = time.monotonic()
        if missing is None:
            if self._since is not None:
                console.note(f"{self.stage} goes on")
            self._since = None
            return
        if self._since is None:
            self._since, self._told = now, -math.inf
        if now - self._since >= 60 * self.minutes:
            raise UserError(
                f"resources.wait_minutes: {self.stage} has waited {self.minutes:g} minutes for {missing}; "
                "then run again, and it goes on from here"
            )
        if now - self._told >= TELL_SECONDS:
            self._told = now
            waited = f"{now - self._since:.0f} s of {60 * self.minutes:.0f}"
            console.note(f"{self.stage} waits ({waited}) for {missing}")


def for_room(run: Run, stage: str, request: Request, workers: int = 1) -> None:
    """Return once the cluster could hold so many workers, were it idle.

    Raises:
        UserError: it could not for ``resources.wait_minutes``.
    """
    patience, clock = Patience(run, stage), work_clock.current()
    while missing := request.missing(workers, capacity.living_nodes()):
        clock.wait()
        patience.look(missing)
        time.sleep(LOOK_SECONDS)
    clock.work()
    patience.look(None)


def for_answer(run: Run, stage: str, request: Request, answer: Any) -> Any:
    """The value of a Ray object that a worker with such a request makes.

    Raises:
        UserError: no node that lives could hold it for ``resources.wait_minutes``.
    """
    import ray

    patience, clock = Patience(run, stage), work_clock.current()
    clock.wait()  # what is asked is answered at once, where there is a place
    while not ray.wait([answer], timeout=LOOK_SECONDS)[0]:
        patience.look(request.missing(1, capacity.living_nodes()))
    clock.work()
    return ray.get(answer)


def while_room(
    run: Run,
    stage: str,
    request: Request,
    items: Iterable[T],
    on_look: Callable[[Sequence[Node]], None],
) -> Iterator[T]:
    """Pass on the items of what may block for ever once no node can hold a worker.

    ``on_look`` gets the nodes that live, about once a second.

    Raises:
        UserError: none could for ``resources.wait_minutes``; also what the items raise.
    """
    patience, left = Patience(run, stage), threading.Event()
    passed: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def take() -> None:
        try:
            for item in items:
                if left.is_set():
                    return
                passed.put((True, item))
            passed.put((False, None))
        except BaseException as error:
            passed.put((False, error))

    threading.Thread(target=take, daemon=True).start()
    looked = time.monotonic()
    try:
        while True:
            if time.monotonic() - looked >= LOOK_SECONDS:
                nodes = capacity.living_nodes()
                patience.look(request.missing(1, nodes))
                on_look(nodes)
                looked = time.monotonic()
            try:
                there, item = passed.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if not there:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        left.set()


@contextmanager
def watched(
    run: Run, stage: str, request: Request, workers: int, give_up: Callable[[], None]
) -> Iterator[None]:
    """Look in a thread whether the cluster could hold so many workers, and say what is missing.

    Raises:
        UserError: it could not for ``resources.wait_minutes``; ``give_up`` was called, which ends what
            runs meanwhile.
    """
    import ray

    stop, patience = threading.Event(), Patience(run, stage)
    refusals: list[UserError] = []

    def look() -> None:
        while not stop.wait(LOOK_SECONDS):
            try:
                patience.look(request.missing(workers, capacity.living_nodes()))
            except UserError as error:
                refusals.append(error)
                give_up()
                return
            except ray.exceptions.RayError:
                return  # the session ends; what goes wrong is reported elsewhere

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        if refusals:
            raise refusals[0] from None
        raise
    finally:
        stop.set()
        thread.join()
