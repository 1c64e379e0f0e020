"""Functions over many parts, on a pool of Ray actors that outlives the death of any of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cwerm import console
from cwerm.config import Job
from cwerm.stages import capacity, session

RESTARTS = 3

Make = Callable[[], Callable[[Any], Any]]


class _PartWorker:
    """An actor that builds each function once and applies it to parts."""

    def __init__(self) -> None:
        self._name, self._function = "", lambda part: part

    def ready(self) -> None:
        """Returns once it has its place in the cluster."""

    def apply(self, name: str, make: Make, part: Any) -> Any:
        if name != self._name:
            self._name, self._function = "", lambda part: part  # frees the last one's memory first
            self._name, self._function = name, make()
        return self._function(part)


class Pool:
    """Workers for the parts of one stage; see `worker_pool`."""

    def __init__(self, actors: list[Any]) -> None:
        self._actors = actors

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self._actors)

    def map(self, make: Make, parts: Sequence[Any], label: str) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, function(parts[index]))`` as they finish; each worker calls ``make()`` once.

        A worker that dies is started again and its part is done again, up to three times; the
        function must therefore be idempotent. Parts go to workers that run: of two pools that wait for
        each other's CPUs, each gets on with those it has.
        """
        import ray

        shared = ray.put(make)
        name = shared.hex()
        todo = deque(range(len(parts)))
        running: dict[Any, tuple[int, Any]] = {}
        starting = {actor.ready.remote(): actor for actor in self._actors}

        def submit(actor: Any) -> None:
            if todo:
                index = todo.popleft()
                running[actor.apply.remote(name, shared, parts[index])] = (index, actor)

        with console.progress(len(parts), label) as advance, session.user_errors():
            while running or todo:
                done, _ = ray.wait([*running, *starting])
                for reference in done:
                    if reference in starting:
                        ray.get(reference)
                        actor = starting.pop(reference)
                        submit(actor)
                        if len(todo) > len(starting):
                            submit(actor)  # waits there while the first is in hand
                        continue
                    index, actor = running.pop(reference)
                    submit(actor)
                    yield index, ray.get(reference)
                    advance(1)


@contextmanager
def worker_pool(job: Job, parts: int, *, gpu: bool = False) -> Iterator[Pool]:
    """A pool of the job's number of workers, or of fewer where there are fewer parts."""
    import ray

    workers = max(1, min(capacity.num_workers(job), parts))
    resources = capacity.worker_resources(workers)
    actor = ray.remote(_PartWorker).options(
        num_cpus=resources["CPU"],
        num_gpus=resources.get("GPU", 0) if gpu else 0,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
        **capacity.ANYWHERE,
    )
    actors = [actor.remote() for _ in range(workers)]
    try:
        yield Pool(actors)
    finally:
        for handle in actors:
            ray.kill(handle)
