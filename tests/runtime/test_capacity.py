"""What a run is sized to, from the records of nodes; and what it says of nodes that have gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import ray
import torch

from cwerm.errors import UserError
from cwerm.runtime import capacity, waiting
from cwerm.runtime.capacity import Node, Request, Size
from cwerm.terminal import console

MakeJob = Callable[..., Any]
HEAD = Node("h", "10.0.0.1", 0, 0)


def node(cpus: float, gpus: int = 0, name: str = "n") -> Node:
    return Node(name, "10.0.0.2", cpus, gpus)


def on_gpus(*nodes: Node, workers: int = 2) -> Size:
    return Size(workers, nodes, 1, "cpu", 8)


def on_cpus(*nodes: Node, workers: int = 2) -> Size:
    return Size(workers, nodes, 0, "cpu", workers)


@pytest.mark.parametrize(
    ("nodes", "workers", "share", "each"),
    [
        ([node(2)], 2, 1.0, 1.0),
        ([node(2)], 2, 0.5, 0.5),
        ([node(2)], 3, 1.0, 0.666),
        ([node(1), node(1)], 3, 1.0, 0.5),  # thirds of two would leave the third without a place
        ([node(3), node(1)], 4, 1.0, 1.0),
        ([node(3), node(1)], 5, 1.0, 0.75),
        ([HEAD, node(16)], 8, 1.0, 1.0),
    ],
)
def test_workers_share_cpus_so_that_all_find_a_place(
    nodes: list[Node], workers: int, share: float, each: float
) -> None:
    request = on_cpus(*nodes).request(workers, share=share)
    assert request == Request(each)
    assert request.room(nodes) >= workers


@pytest.mark.parametrize(
    ("nodes", "cpus"),
    [
        ([node(8, 1), node(8, 1)], 1.0),
        ([node(16), node(1, 2)], 0.5),  # the CPUs beside the GPUs count, not all there are
        ([node(16), node(0, 1)], 0.0),
    ],
)
def test_a_gpu_worker_asks_for_the_cpus_of_a_gpu_node(nodes: list[Node], cpus: float) -> None:
    request = on_gpus(*nodes).request(2)
    assert request == Request(cpus, 1)
    assert request.room(nodes) == sum(n.gpus for n in nodes)


@pytest.mark.parametrize(
    ("nodes", "cpus"),
    [
        ([HEAD, node(8, 1), node(8, 1)], 7.0),
        ([node(8, 1), node(48, 4)], 7.0),  # alike on all nodes
        ([node(16, 4)], 3.0),
        ([node(1, 1)], 1.0),
        ([node(1, 2)], 0.5),
        ([node(16), node(0, 1)], 0.0),
    ],
)
def test_a_rank_has_its_share_of_the_cpus_beside_its_gpu(nodes: list[Node], cpus: float) -> None:
    request = on_gpus(*nodes).ranks()
    assert request == Request(cpus, 1)
    assert request.room(nodes) == sum(n.gpus for n in nodes)


def test_ranks_on_cpus_have_one_each() -> None:
    assert on_cpus(node(16)).ranks() == Request(1.0)


def test_a_worker_that_runs_alone_fits_a_node_that_exists() -> None:
    """The largest node has 16 CPUs; the one with a GPU has 4."""
    request = on_gpus(node(16), node(4, 1)).single(8)
    assert request == Request(4, 1)
    assert on_cpus(node(16), node(4, 1)).single(8) == Request(8)
    assert request.fitted([node(16), node(2, 1)]) == Request(2, 1)
    assert request.fitted([node(16)]) is None


def test_what_is_missing_is_said_with_what_would_help() -> None:
    two = Request(1, 1)
    assert two.missing(2, [node(4, 1), node(4, 1)]) is None
    assert two.missing(2, [node(4, 1), HEAD]) == (
        "1 more GPU (2 workers need a GPU each and there is room for 1); start a node that has one with "
        "`ray start`, or get it from the cluster's autoscaler: `python cluster/gpus.py 2`"
    )
    assert str(two.missing(1, [node(16)])).startswith("a GPU (no node that is left has one)")
    assert str(Request(1).missing(3, [HEAD, node(1)])).startswith("2 more CPUs (3 workers")


def test_auto_takes_the_gpus_or_up_to_eight_cpus(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "torch_device", lambda nodes: "cuda")
    job = make_job(resources__workers="auto")
    assert capacity.measure(job, [HEAD, node(4, 3), node(16)]).workers == 3
    assert capacity.measure(job, [node(16), node(16)]).workers == 8
    found = capacity.measure(job, [node(4, 1)])
    assert found.device == "cuda"
    assert found.record() == {
        "workers": 1,
        "device": "GPU",
        "gpus_per_worker": 1,
        "cpus_per_worker": 3.0,
        "cpu_workers": 4,
        "nodes": 1,
    }
    assert str(found) == "1 worker of a GPU and 3 CPUs on 1 node; 4 for what needs no GPU"
    assert found.request(found.cpu_workers, gpu=False) == Request(1.0)
    one_gpu = capacity.measure(job, [node(16, 1)])
    assert (one_gpu.workers, one_gpu.cpu_workers) == (1, 8)
    asked = make_job(resources__cpu_workers=12)
    assert capacity.measure(asked, [node(16, 1)]).cpu_workers == 12
    assert capacity.measure(asked, [node(16)]).cpu_workers == 8, "workers counts without a GPU"
    with pytest.raises(UserError, match="the cluster has no worker with a CPU"):
        capacity.measure(job, [HEAD])
    with pytest.raises(UserError, match=r"resources\.workers: 4 workers take a GPU each and 3"):
        capacity.measure(make_job(resources__workers=4), [node(4, 3)])
    elastic = make_job(resources__workers=4, resources__min_workers=2)
    assert capacity.measure(elastic, [node(4, 3)]).workers == 3


def test_a_run_is_sized_once(
    ray_session: None, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU fewer, or none at all, changes nothing of what each later stage asks for."""
    there = [node(4, 2), node(4, 2)]
    monkeypatch.setattr(capacity, "living_nodes", lambda: there)
    monkeypatch.setattr(capacity, "torch_device", lambda nodes: "cuda")
    job, said = make_job(resources__workers=4), list[str]()
    with console.told_to(said.append), capacity.sized_once(job.name) as sizing:
        first = capacity.size(job)
        for left in ([node(4, 2), node(4, 1)], [node(4)], [HEAD]):
            there[:] = left
            assert capacity.size(job) is first
        assert sizing.size is first
    assert said == ["small: 4 workers of a GPU and 1 CPU on 2 nodes; 8 for what needs no GPU"]
    with pytest.raises(UserError):
        capacity.size(job)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_a_node_that_offers_a_gpu_without_a_driver_is_named(ray_session: None) -> None:
    here = ray.get_runtime_context().get_node_id()
    with pytest.raises(UserError) as refused:
        capacity.torch_device([Node(here, "127.0.0.1", 4, 1)])
    line = str(refused.value)
    assert line.startswith("resources: node ")
    assert "offers a GPU to Ray, and torch" in line
    assert "nvidia-smi" in line
    assert "\n" not in line


def test_waiting_is_said_and_ends(
    ray_session: None, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real session without a GPU; every 0.5 s instead of every 30."""
    monkeypatch.setattr(waiting, "TELL_SECONDS", 0.5)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.1)
    job, said = make_job(resources__wait_minutes=0.02), list[str]()
    waiting.for_room(job, "train", Request(1.0), 2)
    with console.told_to(said.append), pytest.raises(UserError) as ended:
        waiting.for_room(job, "train", Request(1.0, 1), 2)
    assert len(said) == 3
    assert said[0].startswith("train waits (0 s of 1) for 2 more GPUs (2 workers need a GPU each")
    assert str(ended.value).startswith(
        "resources.wait_minutes: train has waited 0.02 minutes for 2 more GPUs (2 workers need"
    )
    assert "\n" not in str(ended.value)


def test_work_that_no_node_can_do_any_more_ends(
    ray_session: None, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What blocks meanwhile is ended: Ray's own waiting has no end."""
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.1)
    job = make_job(resources__wait_minutes=0.01)
    never = ray.remote(num_gpus=1)(lambda: None).remote()
    looks: list[int] = []
    blocked = waiting.while_room(
        job,
        "extract",
        Request(1.0, 1),
        (ray.get(reference) for reference in [never]),
        lambda nodes: looks.append(len(nodes)),
    )
    with pytest.raises(UserError, match="extract has waited"):
        list(blocked)
    assert set(looks) == {1}
    with pytest.raises(UserError, match="the run has waited"):
        waiting.for_answer(job, "the run", Request(1.0, 1), never)
    ended: list[bool] = []

    def wait_as_ray_train_does() -> None:
        while not ended:
            time.sleep(0.05)
        raise RuntimeError("what was given up")

    with (
        pytest.raises(UserError, match="train has waited"),
        waiting.watched(job, "train", Request(1.0, 1), 1, lambda: ended.append(True)),
    ):
        wait_as_ray_train_does()
    ray.cancel(never)
