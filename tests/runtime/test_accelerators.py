"""GPUs of one type among several, as far as sizes and requests go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cwerm.errors import UserError
from cwerm.runtime import capacity
from cwerm.runtime.capacity import Node, Request

MakeJob = Callable[..., Any]
A100 = Node("a", "10.0.0.1", 16, 4, ("A100",))
T4 = Node("b", "10.0.0.2", 2, 2, ("T4",))
CPUS = Node("c", "10.0.0.3", 32, 0)


@pytest.fixture(autouse=True)
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "torch_device", lambda nodes: "cuda")


def test_others_count_as_none(make_job: MakeJob) -> None:
    any_type = capacity.measure(make_job(resources__workers="auto"), [A100, T4, CPUS])
    assert any_type.workers == 6
    assert any_type.request(6).accelerator is None
    job = make_job(resources__workers="auto", resources__accelerator_type="A100")
    size = capacity.measure(job, [A100, T4, CPUS])
    assert (size.workers, str(size)[:36]) == (4, "4 workers of a GPU (A100) and 3 CPUs")
    request = size.request(4)
    assert request == Request(1.0, 1, "A100"), "a T4's node, with a CPU a GPU, does not count"
    assert request.options() == {
        "num_cpus": 1.0, "num_gpus": 1, "accelerator_type": "A100", "scheduling_strategy": "DEFAULT",
    }  # fmt: skip
    assert size.single(8) == Request(8.0, 1, "A100")
    assert size.request(8, gpu=False).options().keys() == {
        "num_cpus", "num_gpus", "scheduling_strategy",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"resources\.workers: 5 workers take a GPU each and 4"):
        capacity.measure(
            make_job(resources__workers=5, resources__accelerator_type="A100"), [A100, T4]
        )


def test_only_nodes_of_the_type_have_room() -> None:
    request = Request(1.0, 1, "T4")
    assert request.room([A100, T4, CPUS]) == 2
    assert request.fitted([A100, CPUS]) is None
    assert request.fitted([A100, T4]) == request
    assert request.missing(2, [A100, T4]) is None
    told = request.missing(3, [A100, T4])
    assert told is not None
    assert told.startswith(
        "1 more GPU of type T4 (3 workers need a GPU each and there is room for 2)"
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("H100", "no node has 'H100', there are A100, T4; give one that is there, or leave it out"),
        ("A1000", "no node has 'A1000', there are A100, T4; did you mean 'A100'"),
    ],
)
def test_a_type_that_is_not_there(make_job: MakeJob, asked: str, told: str) -> None:
    job = make_job(resources__workers="auto", resources__accelerator_type=asked)
    with pytest.raises(UserError, match=f"resources.accelerator_type: {told}"):
        capacity.measure(job, [A100, T4, CPUS])
    with pytest.raises(UserError, match="no node has a GPU whose type Ray knows"):
        capacity.measure(job, [CPUS])


@pytest.mark.usefixtures("ray_session")
def test_nodes_tell_their_types() -> None:
    (node,) = capacity.living_nodes()
    assert node.accelerators == ()
