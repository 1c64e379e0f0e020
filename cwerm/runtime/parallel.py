"""Functions over many parts, in Ray tasks that outlive the death of any worker."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.asked import Run
from cwerm.runtime.capacity import Request
from cwerm.runtime.deaths import MOST_DEATHS, Place, check_deaths, is_loss
from cwerm.runtime.waiting import LOOK_SECONDS, TELL_SECONDS, Patience
from cwerm.runtime.worker_errors import WORKERS_KEY, lower, user_errors
from cwerm.store.beside import Later
from cwerm.store.claims import work_clock
from cwerm.terminal import console

# A process of Ray's does many tasks on CPUs one after the other; one that has a GPU ends with its task.
SHARES_A_CPU, SHARES_A_GPU = 4, 1
AHEAD = 4  # parts that a worker goes on while what came before them is being written

Make = Callable[[], Callable[[Any], Any]]


def work_through(make: Make, parts: Sequence[Any], ahead: int = AHEAD) -> Iterator[Any]:
    """What a worker does with its share: it says where it runs, and what the function makes of each part.

    Where that is known `Later`, the worker goes on meanwhile, but no more than so many parts ``ahead``.
    """
    import ray

    yield ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    function = make()
    waiting = deque[Later[Any]]()
    for part in parts:
        found = function(part)
        if not isinstance(found, Later):
            yield found
            continue
        waiting.append(found)
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for later in waiting:
        yield later.result()


@dataclass(frozen=True)
class Pool:
    """The workers of one stage; see `worker_pool`.

    What one that dies has not finished is done again wherever there is room: the functions must be
    idempotent. Deaths of nodes don't count; a part that ends three workers on living nodes is an error.
    """

    run: Run
    stage: str
    size: int
    request: Request
    key: str = WORKERS_KEY
    """The key of the job to lower where memory is short."""
    actor: type | None = None
    """Does each share instead of a task; its method ``work`` is `work_through`."""

    def map(
        self, make: Make, parts: Sequence[Any], label: str, *, bar: bool = True
    ) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, function(parts[index]))`` as they finish; ``make()`` makes the function.

        It is made once for each share of the parts, of which a worker does one after the other.

        Raises:
            UserError: a part that ends its workers, or no worker for ``resources.wait_minutes``.
        """
        shown = console.progress(len(parts), label) if bar else nullcontext(lambda _: None)
        with (
            shown as advance,
            user_errors(self.key),
            closing(_Work(self, make, parts, label)) as work,
        ):
            for done in work.results():
                advance(1)
                yield done


@dataclass(eq=False)
class _Share:
    """Parts that one worker does in turn."""

    left: list[int]
    """The part in hand, and those after it."""
    request: Request
    answers: Any
    """References to what it yields."""
    actor: Any
    place: Place | None = None
    """Where it runs, once it does."""


class _Work:
    """The shares of one map: those that wait for a worker, and those that run."""

    def __init__(self, pool: Pool, make: Make, parts: Sequence[Any], label: str) -> None:
        import ray

        self.pool, self.make, self.parts, self.label = pool, ray.put(make), parts, label
        shares = (SHARES_A_GPU if pool.request.gpus else SHARES_A_CPU) * pool.size
        length = max(1, -(-len(parts) // shares))
        indices = list(range(len(parts)))
        self.todo = deque(indices[i : i + length] for i in range(0, len(indices), length))
        self.running: list[_Share] = []
        self.deaths: dict[int, list[Place]] = defaultdict(list)
        self.bad_starts, self.idle = 0, 0.0
        self.patience, self.looked = Patience(pool.run, pool.stage), -math.inf
        self.request: Request | None = None
        self.clock = work_clock.current()

    def results(self) -> Iterator[tuple[int, Any]]:
        import ray

        while self.todo or self.running:
            if not any(share.place for share in self.running):
                self.clock.wait()
            self._look()
            while self.request and self.todo and len(self.running) < self.pool.size:
                self._start(self.request, self.todo.popleft())
            if not self.running:
                time.sleep(LOOK_SECONDS)
                continue
            sources = {share.answers: share for share in self.running}
            for answers in ray.wait([*sources], timeout=LOOK_SECONDS)[0]:
                share = sources[answers]
                try:
                    value = ray.get(next(answers))
                except StopIteration:
                    self._end(share)
                except Exception as error:
                    if not is_loss(error):
                        raise
                    self._bury(share)
                else:
                    if share.place is None:
                        share.place, self.bad_starts = value, 0
                        self.clock.work()
                    else:
                        yield share.left.pop(0), value

    def close(self) -> None:
        """End what runs."""
        for share in [*self.running]:
            self._end(share)
        self.clock.work()

    def _start(self, request: Request, indices: list[int]) -> None:
        import ray

        actor = None
        if self.pool.actor is None:
            once = {"max_retries": 0, "num_returns": "streaming", "name": self.label}
            work: Any = ray.remote(work_through).options(**request.options(), **once)
        else:
            actor = ray.remote(self.pool.actor).options(**request.options()).remote()
            work = actor.work.options(num_returns="streaming")
        # of a share whose worker has died it must be seen on which part the next one dies
        ahead = 0 if self.deaths.keys() & {*indices} else AHEAD
        answers = work.remote(self.make, [self.parts[index] for index in indices], ahead)
        self.running.append(_Share(indices, request, answers, actor))

    def _end(self, share: _Share) -> None:
        """Also of one that can't be reached."""
        import ray

        self.running.remove(share)
        if share.actor is not None:
            ray.kill(share.actor)
        elif share.left:
            ray.cancel(share.answers, force=True)

    def _bury(self, share: _Share) -> None:
        """Give back the parts of a worker that died, and see whether the first of them is to blame."""
        self._end(share)
        if not share.left:
            return  # all its work has come
        self.todo.appendleft(share.left)
        part = share.left[0]
        if share.place is not None:
            self.deaths[part].append(share.place)
            what = f"{self.label}: part {part + 1} of {len(self.parts)}"
            check_deaths(what, self.deaths[part], self.pool.key)
            return
        self.bad_starts += 1
        if self.bad_starts > MOST_DEATHS * self.pool.size:
            raise UserError(
                f"{self.pool.stage}: its workers end as they start, most likely for want of memory; "
                f"{lower(WORKERS_KEY)}, or see Ray's logs"
            )

    def _look(self) -> None:
        """See, about once a second, what a worker can ask for of the nodes that live."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked, nodes = now, capacity.living_nodes()
        self.request = self.pool.request.fitted(nodes)
        for share in [share for share in self.running if share.place is None]:
            if self.request and not share.request.room(nodes):
                self._end(share)  # it asks for what no node has any more
                self.todo.appendleft(share.left)
        if any(share.place for share in self.running) or self.request:
            self.patience.look(None)
        else:
            self.patience.look(self.pool.request.missing(1, nodes))
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        """Say once that others hold what the pool asks for."""
        if not self.running or any(share.place for share in self.running):
            self.idle = 0.0
            return
        if self.idle < TELL_SECONDS <= self.idle + LOOK_SECONDS:
            console.note(f"{self.pool.stage}: other work holds the CPUs or GPUs; it waits for them")
        self.idle += LOOK_SECONDS


def worker_pool(
    run: Run, stage: str, parts: int, *, gpu: bool = False, key: str = WORKERS_KEY
) -> Pool:
    """A pool of the run's workers, or of fewer where there are fewer parts.

    Without ``gpu`` it is one of CPUs, also where there are GPUs, and those stay free.
    """
    size = capacity.size(run)
    workers = max(1, min(size.workers if gpu else size.cpu_workers, parts))
    return Pool(run, stage, workers, size.request(workers, gpu=gpu), key)
