"""A worker's error is one line, whatever Ray wrapped around it."""

from __future__ import annotations

import errno
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.tune.error import TuneError

from cwerm.errors import UserError
from cwerm.runtime.worker_errors import find_user_error, user_errors

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't have it

LINE = "data.source: 'x' is no image; mend it"


def refuse() -> None:
    raise UserError(LINE)


def of_a_task() -> None:
    ray.get(ray.remote(num_cpus=0)(refuse).remote())


def of_a_task_in_a_task() -> None:
    """Its cause is itself an error of Ray with a trace for a text."""
    ray.get(ray.remote(num_cpus=0)(of_a_task).remote())


def of_a_constructor() -> None:
    class Actor:
        def __init__(self) -> None:
            refuse()

        def work(self) -> None:
            pass

    ray.get(ray.remote(num_cpus=0)(Actor).remote().work.remote())


def of_ray_data() -> None:
    def function(batch: Any) -> Any:
        refuse()
        return batch

    ray.data.range(2).map_batches(function, num_cpus=0).materialize()


@pytest.mark.parametrize("fail", [of_a_task, of_a_task_in_a_task, of_a_constructor, of_ray_data])
def test_what_ray_wraps(ray_session: None, fail: Callable[[], None]) -> None:
    with pytest.raises(UserError) as told, user_errors():
        fail()
    assert type(told.value) is UserError
    assert str(told.value) == LINE


def task_error(cause: Exception) -> Any:
    """What `ray.get` raises for a task that raised ``cause``."""
    error = RayTaskError("f", f"Traceback (most recent call last):\n{cause!r}", cause, "p", 1, "ip")
    return error.as_instanceof_cause()


WRAPPED = {
    "a group of ranks": lambda e: WorkerGroupError("text", {0: RuntimeError("gone"), 1: e}),
    "its controller": lambda e: ControllerError(e),
    "a task": task_error,
    "a task in a task": lambda e: task_error(task_error(e)),
    "ranks of the controller": lambda e: ControllerError(WorkerGroupError("text", {0: e})),
    "a pickle": lambda e: pickle.loads(pickle.dumps(WorkerGroupError("text", {0: e}))),
    "a group": lambda e: ExceptionGroup("several", [RuntimeError("gone"), e]),
    "a text of Tune": lambda e: TuneError(
        "\x1b[36mray::run()\x1b[39m (pid=1)\n  raise\n" + traceback.format_exception_only(e)[0]
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_what_train_and_tune_wrap(wrap: Callable[[Exception], Exception]) -> None:
    assert str(find_user_error(wrap(UserError(LINE)))) == LINE


CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 78 GiB"
SHORT: dict[str, tuple[Exception, str]] = {
    "of a GPU": (
        torch.OutOfMemoryError(CUDA),
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ),
    "of Python": (MemoryError(), "no more was given"),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize(("error", "reason"), SHORT.values(), ids=SHORT.keys())
def test_memory_that_ran_out_names_the_key(
    wrap: Callable[[Exception], Exception], error: Exception, reason: str
) -> None:
    told = find_user_error(wrap(error), "train.batch_size")
    assert str(told) == (
        f"train.batch_size: memory ran out ({reason}); lower train.batch_size, or resources.workers"
    )


def test_memory_that_ran_out_on_a_cpu_is_what_the_libraries_say() -> None:
    for allocate in (lambda: torch.empty(2**55), lambda: np.empty(2**55)):
        with pytest.raises(UserError) as told, user_errors("features.batch_size"):
            allocate()
        line = str(told.value)
        assert line.startswith("features.batch_size: memory ran out (")
        assert "allocate" in line
        assert "\n" not in line


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_full_disk(wrap: Callable[[Exception], Exception]) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/mnt/x")
    assert "no space is left at '/mnt/x'" in str(find_user_error(wrap(error)))


def test_other_errors_stay_as_they_are() -> None:
    error = task_error(RuntimeError("something of ours"))
    assert find_user_error(error) is None
    with pytest.raises(RuntimeError), user_errors():
        raise error
    with pytest.raises(UserError) as told, user_errors():
        refuse()
    assert str(told.value) == LINE
