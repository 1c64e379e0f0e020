"""The nodes of the cluster, and what one worker reserves of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# A trial of a sweep holds a small reservation, in which Ray would put all that the trial starts.
ANYWHERE = {"scheduling_strategy": "DEFAULT"}
ROUNDING = 1e-9
TYPE = "accelerator_type:"  # before the type of a node's GPUs, among the resources that Ray knows of it


@dataclass(frozen=True)
class Node:
    """A node that lives, and what it has, whoever holds it."""

    id: str
    address: str
    cpus: float
    gpus: int
    accelerators: tuple[str, ...] = ()
    """The types of its GPUs, in Ray's names."""


def living_nodes() -> list[Node]:
    """The nodes of the cluster as Ray knows them now."""
    import ray

    return [
        Node(
            record["NodeID"],
            record["NodeManagerAddress"],
            float(record["Resources"].get("CPU", 0)),
            int(record["Resources"].get("GPU", 0)),
            tuple(sorted(_types(record["Resources"]))),
        )
        for record in ray.nodes()
        if record["Alive"]
    ]


def _types(resources: Mapping[str, float]) -> Iterator[str]:
    return (name.removeprefix(TYPE) for name in resources if name.startswith(TYPE))


@dataclass(frozen=True)
class Request:
    """What one worker reserves."""

    cpus: float
    gpus: int = 0
    accelerator: str | None = None
    """The type that its GPU must be of."""

    def room(self, nodes: Sequence[Node]) -> int:
        """How many such workers the nodes could hold, were they idle."""
        return sum(self._on_node(node) for node in nodes)

    def _on_node(self, node: Node) -> int:
        if not self._suits(node):
            return 0
        rooms = [node.gpus // self.gpus] if self.gpus else []
        if self.cpus:
            rooms.append(int(node.cpus / self.cpus + ROUNDING))
        return min(rooms, default=0)

    def _suits(self, node: Node) -> bool:
        return self.accelerator is None or self.accelerator in node.accelerators

    def fitted(self, nodes: Sequence[Node]) -> Request | None:
        """The same with no more CPUs than one of the nodes has; None where none has GPU and CPU."""
        able = [n for n in nodes if n.gpus >= self.gpus and (n.cpus > 0 or not self.cpus)]
        able = [n for n in able if self._suits(n)]
        if not able or not (self.cpus or self.gpus):
            return None
        return replace(self, cpus=min(self.cpus, max(node.cpus for node in able)))

    def options(self) -> dict[str, Any]:
        """Ray's names for it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **self.of_type(), **ANYWHERE}

    def of_type(self) -> dict[str, str]:
        """Ray's name for the type of GPU, where one is asked for."""
        return {"accelerator_type": self.accelerator} if self.accelerator else {}

    def missing(self, workers: int, nodes: Sequence[Node]) -> str | None:
        """What the cluster lacks for so many of these workers, and what would help; None for nothing."""
        room = self.room(nodes)
        if room >= workers:
            return None
        kind = "GPU" if self.gpus else "CPU"
        of_type = f" of type {self.accelerator}" if self.accelerator else ""
        wanted = f"{workers - room} more {kind}{'s' if workers - room > 1 else ''}{of_type}"
        has = f"{workers} workers need a {kind} each and there is room for {room}"
        if workers == 1:
            wanted, has = f"a {kind}{of_type}", "no node that is left has one"
        return (
            f"{wanted} ({has}); start a node that has one with `ray start`, or get it from the "
            f"cluster's autoscaler: `python cluster/gpus.py {workers}`"
        )
