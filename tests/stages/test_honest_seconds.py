"""A stage's seconds are those of its work: not those in which others held all CPUs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray

from cwerm.job.tree import Job
from cwerm.pipeline import plan
from stages.conftest import Fork

HELD = 8.0


def hold_all(held: threading.Event) -> None:
    """Keep every CPU of the session for a while, as another trial does."""

    @ray.remote(num_cpus=4, max_retries=0)
    def hog() -> Any:
        yield None
        time.sleep(HELD)
        yield None

    answers = hog.options(num_returns="streaming").remote()
    ray.get(next(answers))
    held.set()
    ray.get(next(answers))


def timed(make: Callable[[], Any], *, busy: bool) -> tuple[float, float]:
    """Seconds of the artifact, and those that passed."""
    if busy:
        held = threading.Event()
        other = threading.Thread(target=hold_all, args=(held,))
        other.start()
        held.wait()
    started = time.monotonic()
    artifact = make()
    passed = time.monotonic() - started
    if busy:
        other.join()
    return artifact.seconds, passed


@pytest.mark.usefixtures("ray_session")
def test_tasks_that_wait(make_job: Callable[..., Job]) -> None:
    steps = plan(make_job())
    seconds, passed = timed(lambda: steps.execute("ingest").artifact, busy=True)
    assert passed > HELD - 1
    assert seconds < passed - (HELD - 3)
    assert seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["extract", "train"])
def test_actors_and_ranks_that_wait(fork: Fork, stage: str) -> None:
    changes = {"train__model": "small_cnn", "train__epochs": 1}
    seconds, passed = timed(lambda: fork(stage, **changes).run(stage), busy=True)
    assert passed > HELD - 1
    assert seconds < passed - (HELD - 4)
    alone, passed_alone = timed(lambda: fork(stage, **changes).run(stage), busy=False)
    assert 0 < alone <= passed_alone
