"""Functions over many parts, on a pool of Ray actors that outlives the death of any of them."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.asked import Run
from cwerm.runtime.capacity import Request
from cwerm.runtime.waiting import LOOK_SECONDS, TELL_SECONDS, Patience
from cwerm.runtime.worker_errors import WORKERS_KEY, lower, user_errors
from cwerm.terminal import console

MOST_DEATHS = 3  # of the workers that do one part, on nodes that live

Make = Callable[[], Callable[[Any], Any]]


class PartWorker:
    """An actor that builds each function once and applies it to parts."""

    def __init__(self) -> None:
        self._name, self._function = "", lambda part: part

    def ready(self) -> tuple[str, str]:
        """The id and the address of its node, once it has its place in the cluster."""
        import ray

        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def apply(self, name: str, make: Make, part: Any) -> Any:
        """``make()(part)``; what was made is kept for the next part under the same name."""
        if name != self._name:
            self._name, self._function = "", lambda part: part  # frees the last one's memory first
            self._name, self._function = name, make()
        return self._function(part)


@dataclass(eq=False)
class _Worker:
    """An actor that is starting or runs."""

    actor: Any
    request: Request
    starting: Any
    node: tuple[str, str] | None = None
    tasks: deque[tuple[Any, int]] = field(default_factory=deque)


def is_loss(error: BaseException) -> bool:
    """Whether Ray says that a worker, or what it had made, is gone; not what our code raised."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.ObjectLostError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
    )
    raised = isinstance(error, exceptions.RayTaskError) or getattr(
        error, "actor_init_failed", False
    )
    return isinstance(error, lost) and not raised


def too_many_deaths(what: str, address: str, key: str) -> UserError:
    """The error where one piece of work ends worker after worker."""
    return UserError(
        f"{what} has ended its worker {MOST_DEATHS} times, last on node {address}, most likely for want of "
        f"memory there; {lower(key)}, or see Ray's logs on that node"
    )


class Pool:
    """Workers for the parts of one stage; see `worker_pool`.

    One that dies is replaced wherever there is room, and its part is done again: the functions must be
    idempotent. Deaths of nodes don't count; a part that ends three workers on living nodes is an error.
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        workers: int,
        request: Request,
        *,
        key: str = WORKERS_KEY,
        kind: type[PartWorker] = PartWorker,
    ) -> None:
        self.size = workers
        self._stage, self._request, self._key, self._kind = stage, request, key, kind
        self._workers: list[_Worker] = []
        self._patience = Patience(run, stage)
        self._bad_starts, self._looked = 0, -math.inf

    def map(
        self, make: Make, parts: Sequence[Any], label: str, *, bar: bool = True
    ) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, function(parts[index]))`` as they finish; each worker calls ``make()`` once.

        Parts go to workers that run: of two pools that wait for each other's CPUs, each gets on with
        those it has.

        Raises:
            UserError: a part that ends its workers, or no worker for ``resources.wait_minutes``.
        """
        import ray

        shared = ray.put(make)
        name = shared.hex()
        todo = deque(range(len(parts)))
        deaths: dict[int, list[tuple[str, str]]] = defaultdict(list)
        left, idle = len(parts), 0.0
        for worker in self._workers:
            worker.tasks.clear()  # of a map that was left early
        shown = console.progress(len(parts), label) if bar else nullcontext(lambda _: None)
        with shown as advance, user_errors(self._key):
            while left:
                self._replace_dead()
                for depth in (1, 2):  # the second waits there while the first is in hand
                    for worker in self._running():
                        few = len(todo) <= sum(w.node is None for w in self._workers)
                        if todo and len(worker.tasks) < depth and not (depth == 2 and few):
                            index = todo.popleft()
                            task = worker.actor.apply.remote(name, shared, parts[index])
                            worker.tasks.append((task, index))
                waiting = {w.starting: w for w in self._workers if w.node is None}
                waiting |= {task: w for w in self._workers for task, _ in w.tasks}
                if not waiting:
                    time.sleep(LOOK_SECONDS)
                    continue
                done, _ = ray.wait([*waiting], timeout=LOOK_SECONDS)
                idle = self._tell_if_idle(idle)
                for reference in done:
                    worker = waiting[reference]
                    if worker not in self._workers:
                        continue  # buried a moment ago
                    try:
                        value = ray.get(reference)
                    except Exception as error:
                        if not is_loss(error):
                            raise
                        blamed = self._bury(worker, todo)
                        if blamed is not None and worker.node:
                            deaths[blamed].append(worker.node)
                            self._check_deaths(label, blamed, len(parts), deaths[blamed])
                        continue
                    if worker.node is None:
                        worker.node, self._bad_starts = value, 0
                        continue
                    (index,) = [i for task, i in worker.tasks if task == reference]
                    worker.tasks.remove((reference, index))
                    left -= 1
                    advance(1)
                    yield index, value

    def close(self) -> None:
        """End all workers."""
        import ray

        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers = []

    def _running(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.node is not None]

    def _replace_dead(self) -> None:
        """Start workers up to the pool's size, each so that it fits a node that lives."""
        import ray

        if self._running():
            self._patience.look(None)
        now = time.monotonic()
        if len(self._running()) == self.size or (
            self._workers and now - self._looked < LOOK_SECONDS
        ):
            return
        self._looked, nodes = now, capacity.living_nodes()
        request = self._request.fitted(nodes)
        for worker in [w for w in self._workers if w.node is None]:
            if request and not worker.request.room(nodes):
                ray.kill(worker.actor)  # it asks for what no node has any more
                self._workers.remove(worker)
        while request and len(self._workers) < self.size:
            actor = ray.remote(self._kind).options(**request.options()).remote()
            self._workers.append(_Worker(actor, request, actor.ready.remote()))
        if not self._running():
            self._patience.look(None if request else self._request.missing(1, nodes))

    def _tell_if_idle(self, seconds: float) -> float:
        """Say once that others hold what the pool asks for; the seconds that it has waited for them."""
        if self._running() or not self._workers:
            return 0.0
        if seconds < TELL_SECONDS <= seconds + LOOK_SECONDS:
            console.note(f"{self._stage}: other work holds the CPUs or GPUs; it waits for them")
        return seconds + LOOK_SECONDS

    def _bury(self, worker: _Worker, todo: deque[int]) -> int | None:
        """Give back the parts of a dead worker; the part that it had in hand."""
        import ray

        ray.kill(worker.actor)  # unreachable is dead, too
        self._workers.remove(worker)
        parts = [index for _, index in worker.tasks]
        todo.extendleft(reversed(parts))
        if worker.node is None:
            self._bad_starts += 1
            if self._bad_starts > MOST_DEATHS * self.size:
                raise UserError(
                    f"{self._stage}: its workers end as they start, most likely for want of memory; "
                    f"{lower(WORKERS_KEY)}, or see Ray's logs"
                )
        return parts[0] if parts else None

    def _check_deaths(
        self, label: str, part: int, parts: int, deaths: list[tuple[str, str]]
    ) -> None:
        living = {node.id for node in capacity.living_nodes()}
        if sum(node in living for node, _ in deaths) >= MOST_DEATHS:
            what = f"{label}: part {part + 1} of {parts}"
            raise too_many_deaths(what, deaths[-1][1], self._key)


@contextmanager
def worker_pool(
    run: Run, stage: str, parts: int, *, gpu: bool = False, key: str = WORKERS_KEY
) -> Iterator[Pool]:
    """A pool of the run's workers, or of fewer where there are fewer parts.

    Without ``gpu`` it is one of CPUs, also where there are GPUs, and those stay free. ``key`` is the key
    of the job to lower where memory is short.
    """
    size = capacity.size(run)
    workers = max(1, min(size.workers if gpu else size.cpu_workers, parts))
    pool = Pool(run, stage, workers, size.request(workers, gpu=gpu), key=key)
    try:
        yield pool
    finally:
        pool.close()
