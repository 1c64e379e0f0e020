"""The pool's own care for its actors, on real ones that die."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cwerm.errors import UserError
from cwerm.runtime import parallel
from cwerm.runtime.parallel import Pool, worker_pool
from cwerm.store.beside import Later, WriteBehind
from cwerm.terminal import console

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't have it

MakeJob = Callable[..., Any]


class Deadly:
    """Squares its part; parts named by a file die so many times as the file says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, part: int) -> int:
        file = self.folder / str(part)
        if file.exists():
            lives = int(file.read_text())
            if lives:
                file.write_text(str(lives - 1))
                os.kill(os.getpid(), signal.SIGKILL)
        return part * part


def test_a_part_that_kills_its_workers_is_done_at_last_or_named(
    ray_session: None, make_job: MakeJob, tmp_path: Path
) -> None:
    """Two deaths of one part are made good; three are an error, on a node that lives."""
    make = functools.partial(Deadly, tmp_path)
    tmp_path.joinpath("1").write_text("2")
    pool = worker_pool(make_job(), "select", 8)
    assert pool.size == 2
    assert dict(pool.map(make, range(8), "select: squares")) == {i: i * i for i in range(8)}
    tmp_path.joinpath("6").write_text("9")
    with pytest.raises(UserError) as ended:
        dict(pool.map(make, range(8), "select: squares"))
    line = str(ended.value)
    assert line.startswith(
        "select: squares: part 7 of 8 has ended its worker 3 times, last on node "
    )
    assert "lower resources.workers" in line
    assert "\n" not in line
    # a death may take the answer of the part before with it, and then counts against that one
    assert tmp_path.joinpath("6").read_text() in ("5", "6")


class Written(Deadly):
    """As `Deadly`, but known only once it is written, which takes the longer the earlier the part."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.behind = WriteBehind()
        self.begun = 0

    def __call__(self, part: int) -> Later[tuple[int, int]]:
        square = super().__call__(part)
        self.begun += 1

        def write() -> int:
            time.sleep(0.3 / (1 + part))
            if self.folder.joinpath("broken").exists() and part == 5:
                raise UserError("no room")
            return square

        begun = self.behind.write(write)
        return Later(lambda: (begun.result(), self.begun))


def test_a_worker_goes_on_while_it_writes(
    ray_session: None, make_job: MakeJob, tmp_path: Path
) -> None:
    make = functools.partial(Written, tmp_path)
    pool = worker_pool(make_job(), "select", 1)
    done = dict(pool.map(make, range(24), "select"))
    assert [done[i][0] for i in range(24)] == [i * i for i in range(24)]
    most = -(-24 // parallel.SHARES_A_CPU)
    ahead = [done[i][1] - (i % most + 1) for i in range(24)]
    assert max(ahead) == parallel.AHEAD, "which bounds what is held"
    tmp_path.joinpath("broken").touch()
    with pytest.raises(UserError, match="no room"):
        dict(pool.map(make, range(24), "select"))


def test_a_part_is_blamed_although_others_before_it_are_still_written(
    ray_session: None, make_job: MakeJob, tmp_path: Path
) -> None:
    tmp_path.joinpath("3").write_text("9")
    pool = worker_pool(make_job(), "select", 1)
    with pytest.raises(UserError, match="part 4 of 24 has ended its worker 3 times"):
        dict(pool.map(functools.partial(Written, tmp_path), range(24), "select"))


def test_deaths_on_nodes_that_have_gone_cost_nothing(
    ray_session: None, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four deaths of one part, each on a node that is not among the living afterwards."""
    nodes = parallel.capacity.living_nodes()
    gone = [parallel.capacity.Node("another", n.address, n.cpus, n.gpus) for n in nodes]
    tmp_path.joinpath("1").write_text("4")
    pool = worker_pool(make_job(), "select", 2)
    monkeypatch.setattr(parallel.capacity, "living_nodes", lambda: gone)
    made = dict(pool.map(functools.partial(Deadly, tmp_path), range(2), "select"))
    assert made == {0: 0, 1: 1}


def test_a_pool_without_a_place_says_so_and_ends(
    ray_session: None, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "LOOK_SECONDS", 0.1)
    said: list[str] = []
    job = make_job(resources__wait_minutes=0.01)
    pool = Pool(job, "broadcast", 2, parallel.Request(1.0, 1))
    with console.told_to(said.append), pytest.raises(UserError) as ended:
        list(pool.map(lambda: abs, [1, 2], "broadcast: weights"))
    assert said
    assert all(line.startswith("broadcast waits (0 s of 1) for a GPU") for line in said)
    assert str(ended.value).startswith("resources.wait_minutes: broadcast has waited 0.01 minutes")


def test_what_a_function_raises_ends_the_work_at_once(ray_session: None, make_job: MakeJob) -> None:
    def refuse() -> Callable[[int], int]:
        def function(part: int) -> int:
            raise UserError(f"part {part} is refused")

        return function

    def out_of_memory() -> Callable[[int], int]:
        def function(part: int) -> int:
            raise MemoryError("Unable to allocate 2.00 GiB")

        return function

    pool = worker_pool(make_job(), "ingest", 1, key="data.rows_per_part")
    with pytest.raises(UserError) as ended:
        list(pool.map(refuse, [0], "ingest"))
    assert str(ended.value) == "part 0 is refused"
    with pytest.raises(UserError) as short:
        list(pool.map(out_of_memory, [0], "ingest"))
    assert str(short.value) == (
        "data.rows_per_part: memory ran out (Unable to allocate 2.00 GiB); "
        "lower data.rows_per_part, or resources.workers"
    )


def test_a_function_is_made_once_a_share(ray_session: None, make_job: MakeJob) -> None:
    """And a process does many shares, of one map after the other: starting one takes seconds."""

    def make() -> Callable[[int], tuple[int, float]]:
        born = time.perf_counter()
        return lambda part: (os.getpid(), born)

    pool = worker_pool(make_job(), "select", 100)
    found = [dict(pool.map(make, range(40), "select")) for _ in range(3)]
    assert [set(answers) for answers in found] == 3 * [set(range(40))]
    assert all(len(set(answers.values())) == 8 for answers in found), "4 shares a worker"
    assert len({process for answers in found for process, _ in answers.values()}) <= 4


def test_a_worker_lost_after_its_last_part_costs_nothing(
    ray_session: None, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies_at_last(
        make: Callable[[], Callable[[int], int]], parts: list[int], ahead: int
    ) -> Iterator[Any]:
        yield "node", "address"
        for part in parts:
            yield make()(part)
        time.sleep(0.5)  # what it has made is on its way
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(parallel, "work_through", dies_at_last)
    pool = worker_pool(make_job(), "select", 8)
    made = dict(pool.map(lambda: lambda part: 3 * part, range(8), "select"))
    assert made == {part: 3 * part for part in range(8)}


def test_what_is_left_early_works_no_more(
    ray_session: None, make_job: MakeJob, tmp_path: Path
) -> None:
    def make() -> Callable[[int], None]:
        def function(part: int) -> None:
            tmp_path.joinpath(f"{part}").touch()
            time.sleep(0.1)

        return function

    results = worker_pool(make_job(), "select", 100).map(make, range(400), "select")
    next(results)
    results.close()
    time.sleep(1)
    before = len(list(tmp_path.iterdir()))
    time.sleep(1)
    assert 0 < before == len(list(tmp_path.iterdir())) < 100


DYING = """
from cwerm.runtime.session import session
session.quiet_ray()
import os, pathlib, signal, sys, time
import ray
from cwerm.job.tree import parse_job
from cwerm.runtime.parallel import worker_pool
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
job = parse_job({"name": "dying", "data": {"source": "sample"}})
session.ensure_ray(job)
lived = pathlib.Path(sys.argv[1])
def make():
    def function(part):
        if part == 3 and not lived.exists():
            lived.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return part
    return function
print(sorted(dict(worker_pool(job, "select", 8).map(make, range(8), "select"))))
time.sleep(2)  # for what Ray has to say
"""


@pytest.mark.slow
def test_a_user_hears_nothing_of_a_worker_whose_part_is_done_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DYING, str(tmp_path / "lived")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert tmp_path.joinpath("lived").exists()
    assert done.stdout == "[0, 1, 2, 3, 4, 5, 6, 7]\n"
    assert done.stderr == ""
