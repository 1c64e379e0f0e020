"""Which piece of work was in hand on whom: what ends its worker again and again is found by that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cwerm.runtime.capacity import Node
from cwerm.runtime.deaths import Place, check_deaths
from cwerm.store.claims import work_clock


class _Ledger:
    """An actor of the driver's node: who works where, on what, and what ended its worker before."""

    def __init__(self) -> None:
        self.workers: dict[str, tuple[Any, str]] = {}
        self.open: dict[str, Place] = {}
        self.deaths: dict[str, list[Place]] = defaultdict(list)

    def enrol(self, name: str, worker: Any, node: str) -> None:
        """Note an actor, which may have been on another node before."""
        self.workers[name] = (worker, node)

    def enrolled(self) -> list[tuple[Any, str]]:
        """All actors and the ids of their nodes."""
        return [*self.workers.values()]

    def begin(self, work: str, node: str, address: str) -> list[Place]:
        """Note where the work is in hand; the nodes where it ended a worker before."""
        if work in self.open:  # Ray does again what a worker died of
            self.deaths[work].append(self.open[work])
        self.open[work] = (node, address)
        return self.deaths[work]

    def end(self, work: str) -> None:
        """The work is done, or raised what is told elsewhere."""
        self.open.pop(work, None)


@contextmanager
def ledger() -> Iterator[Any]:
    """An actor handle for `attempt`; at the end no actor that enrolled with it works any more."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # strictly here: a busy node would pass it on to another one, and it would be lost with that
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(_Ledger).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield actor
    finally:
        with suppress(ray.exceptions.RayError):  # what went wrong is told already
            end_lost_workers(actor, [])
        ray.kill(actor)


def enrol(book: Any) -> str:
    """Called by an actor as it starts, so that `end_lost_workers` finds it; its id."""
    import ray

    context = ray.get_runtime_context()
    name = context.get_actor_id()
    book.enrol.remote(name, context.current_actor, context.get_node_id())
    return name


def end_lost_workers(book: Any, nodes: Sequence[Node]) -> None:
    """Give up the actors of nodes that have gone: Ray would keep their work until they have a place.

    Where there are any actors, the stage works.
    """
    import ray

    living = {node.id for node in nodes}
    enrolled = ray.get(book.enrolled.remote())
    if enrolled:
        work_clock.current().work()
    for worker, node in enrolled:
        if node not in living:
            ray.kill(worker)


@contextmanager
def attempt(book: Any, work: str, key: str, whose: str | None = None) -> Iterator[None]:
    """Do ``work``, unless it has ended three workers on nodes that live; ``key`` is what to lower then.

    Work that each actor does for itself is told apart by ``whose`` it is.

    Raises:
        UserError: naming the work and the node.
    """
    import ray

    here = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    name = f"{work} {whose}"
    deaths = ray.get(book.begin.remote(name, *here))
    try:
        check_deaths(work, deaths, key)
        yield
    finally:
        ray.get(book.end.remote(name))
