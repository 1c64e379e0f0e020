"""What a run is sized to when it starts, and what its workers reserve of the nodes that live."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from cwerm.errors import UserError, did_you_mean
from cwerm.runtime.asked import Run
from cwerm.runtime.nodes import ROUNDING, Node, Request, living_nodes
from cwerm.runtime.session import cluster
from cwerm.runtime.session.session import ensure_ray
from cwerm.terminal import console

AUTO_CPU_WORKERS = 8


@dataclass(frozen=True)
class Size:
    """How many workers each distributed stage has, and on what; the same from start to end of a run."""

    workers: int
    nodes: tuple[Node, ...]
    gpus: int
    """Of each worker that computes with torch: 1 or 0."""
    device: str
    """torch's name of what they compute on."""
    cpu_workers: int
    """Of what needs no GPU."""
    accelerator: str | None = None
    """The type that their GPUs must be of; ``nodes`` has no other ones."""

    def request(self, workers: int, *, gpu: bool = True, share: float = 1.0) -> Request:
        """What each of ``workers`` reserves: a GPU where the run has any, and up to one CPU.

        ``share`` is the part of each node's CPUs that they may hold together; a pool that held them all
        would starve the tasks that feed it, and wait for ever.
        """
        if gpu and self.gpus:
            most = min(node.cpus / node.gpus for node in self.nodes if node.gpus)
            return Request(_down(min(1.0, share * most)), 1, self.accelerator)
        return Request(_down(_largest_share([share * node.cpus for node in self.nodes], workers)))

    def ranks(self) -> Request:
        """What each rank of a training reserves: as `request`, but beside a GPU its share of the node's CPUs.

        They decode its images. One CPU of a node is left to what else runs there.
        """
        request = self.request(self.workers)
        if not self.gpus:
            return request
        spare = min((node.cpus - 1) // node.gpus for node in self.nodes if node.gpus)
        return replace(request, cpus=max(request.cpus, float(spare)))

    def single(self, most_cpus: int) -> Request:
        """What a worker that runs alone reserves: a GPU, and up to so many CPUs of the same node."""
        able = [node.cpus for node in self.nodes if node.gpus >= self.gpus and node.cpus]
        cpus = min(float(most_cpus), max(able, default=0.0))
        return Request(cpus, self.gpus, self.accelerator)

    def sharing_memory(self, workers: int) -> int:
        """How many of the workers use one memory: one on a GPU of its own, all of a node on CPUs."""
        return 1 if self.gpus else -(-workers // sum(node.cpus > 0 for node in self.nodes))

    def record(self) -> dict[str, Any]:
        """For the summary of a run."""
        request = self.ranks()
        return {
            "workers": self.workers,
            "device": "GPU" if self.gpus else "CPU",
            "gpus_per_worker": self.gpus,
            "cpus_per_worker": request.cpus,
            "cpu_workers": self.cpu_workers,
            "nodes": sum(bool(node.cpus or node.gpus) for node in self.nodes),
        }

    def __str__(self) -> str:
        facts = self.record()
        cpus = facts["cpus_per_worker"]
        each = f"{cpus:g} CPU{'s' if cpus > 1 else ''}"
        if self.gpus:
            each = f"a GPU{f' ({self.accelerator})' if self.accelerator else ''} and {each}"
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        found = f"{workers} of {each} on {facts['nodes']} node{'s' if facts['nodes'] > 1 else ''}"
        return f"{found}; {self.cpu_workers} for what needs no GPU" if self.gpus else found


@dataclass
class Sizing:
    """The size of one run, once a stage has asked for it."""

    name: str | None
    size: Size | None = None


_sizing: ContextVar[Sizing | None] = ContextVar("sizing", default=None)


@contextmanager
def sized_once(name: str | None = None) -> Iterator[Sizing]:
    """Size what runs meanwhile once, as soon as a stage has something to compute.

    It is told under the ``name`` of a run.
    """
    sizing = Sizing(name)
    token = _sizing.set(sizing)
    try:
        yield sizing
    finally:
        _sizing.reset(token)


def size(run: Run) -> Size:
    """What this run is sized to; outside of a run, what a run would be sized to now.

    Raises:
        UserError: too few GPUs, none of the type asked for, no CPU, or a GPU that torch can't use.
    """
    sizing = _sizing.get()
    if sizing is not None and sizing.size is not None:
        return sizing.size
    ensure_ray(run)
    found = measure(run, living_nodes())
    if sizing is not None:
        sizing.size = found
        if sizing.name:
            console.note(f"{sizing.name}: {found}")
    return found


def measure(run: Run, nodes: Sequence[Node]) -> Size:
    """Workers as asked, or the GPUs of the nodes, or up to 8 of their CPUs.

    Raises:
        UserError: as `size`.
    """
    asked_type = run.resources.accelerator_type
    if asked_type is not None:
        nodes = _of_type(asked_type, nodes)
    gpus, wanted = sum(node.gpus for node in nodes), run.resources.workers
    cpus = sum(node.cpus for node in nodes)
    if cpus < 1:
        raise cluster.no_cpu(wanted)
    cluster.check_gpus(run.resources.min_workers or wanted, gpus)
    if wanted == "auto":
        workers = gpus or min(AUTO_CPU_WORKERS, int(cpus))
    else:
        workers = min(wanted, gpus) if gpus else wanted
    if not gpus:
        return Size(workers, tuple(nodes), 0, "cpu", workers)
    asked, most = run.resources.cpu_workers, min(AUTO_CPU_WORKERS, int(cpus))
    on_cpus = most if asked == "auto" else asked
    return Size(workers, tuple(nodes), 1, torch_device(nodes), on_cpus, asked_type)


def _of_type(accelerator: str, nodes: Sequence[Node]) -> list[Node]:
    """The nodes as they are without GPUs of other types.

    Raises:
        UserError: no node has a GPU of this type.
    """
    from ray.util import accelerators

    there = sorted({name for node in nodes if node.gpus for name in node.accelerators})
    if accelerator not in there:
        known = sorted(value for name, value in vars(accelerators).items() if name.isupper())
        found = (
            f"there are {', '.join(there)}" if there else "no node has a GPU whose type Ray knows"
        )
        hint = "" if accelerator in known else did_you_mean(accelerator, [*there, *known])
        raise UserError(
            f"resources.accelerator_type: no node has '{accelerator}', {found}"
            f"{hint or '; give one that is there, or leave it out for any'}"
        )
    return [n if accelerator in n.accelerators else replace(n, gpus=0) for n in nodes]


def torch_device(nodes: Sequence[Node]) -> str:
    """What torch calls the GPUs of the nodes.

    Raises:
        UserError: naming a node where it finds none.
    """
    cluster.check_drivers([node.id for node in nodes if node.gpus])
    return "cuda"


def num_workers(run: Run) -> int:
    """Workers of each distributed stage."""
    return size(run).workers


def elastic_workers(run: Run) -> tuple[int, int]:
    """The fewest and the most workers that training runs on; alike where the job asks for no fewer."""
    workers = num_workers(run)
    fewest, wanted = run.resources.min_workers, run.resources.workers
    if fewest is None:
        return workers, workers
    most = workers if wanted == "auto" else wanted
    return min(fewest, most), most


def _largest_share(cpus: Sequence[float], workers: int) -> float:
    """The most CPUs, up to one, that each of ``workers`` can have so that all fit on the nodes."""

    def fits(each: float) -> bool:
        return sum(int(node / each + ROUNDING) for node in cpus) >= workers

    if fits(1.0):
        return 1.0
    shares = {node / count for node in cpus if node for count in range(1, workers + 1)}
    return next(each for each in sorted(shares, reverse=True) if each <= 1 and fits(each))


def _down(cpus: float) -> float:
    """Rounded to what Ray counts in; never up, or the last worker would find no place."""
    return math.floor(1000 * cpus + ROUNDING) / 1000
