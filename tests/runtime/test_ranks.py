"""What ends a training, and what does not: ranks that raise, or die, on a node that lives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from ray.util import placement_group_table

from cwerm.errors import UserError
from cwerm.runtime.board import progress_board
from cwerm.runtime.capacity import Node
from cwerm.runtime.training import ranks
from cwerm.runtime.training.ranks import run_on_ranks
from cwerm.runtime.worker_errors import user_errors
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import open_storage
from cwerm.terminal import console

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't have it


def attempts_of(config: dict[str, Any]) -> int:
    """How many there have been, this one included."""
    file = Path(config["folder"], f"attempt-{os.getpid()}")
    file.touch()
    return len([*file.parent.glob("attempt-*")])


def raises(config: dict[str, Any]) -> None:
    raise RuntimeError(f"something of ours, {attempts_of(config)}")


def refuses(config: dict[str, Any]) -> None:
    raise UserError(f"train.lr: too high, {attempts_of(config)}")


def dies(config: dict[str, Any]) -> None:
    if attempts_of(config) <= config["deaths"]:
        os.kill(os.getpid(), signal.SIGKILL)
    ray.train.report({"done": True})


def looks_around(config: dict[str, Any]) -> None:
    """Writes down where its process listens while the ranks are connected, and which processes there are."""
    import psutil
    import torch

    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    assert total == 2
    found = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"]
    rank = ray.train.get_context().get_world_rank()
    Path(config["folder"], f"rank-{rank}").write_text(
        "\n".join(at.ip.removeprefix("::ffff:") for at in found)
    )
    raylet = psutil.Process().parent()
    assert raylet
    titles = [" ".join(process.cmdline()) for process in raylet.children()]
    Path(config["folder"], f"beside-{rank}").write_text("\n".join(titles))
    torch.distributed.barrier()


@pytest.fixture
def fit(ray_session: None, make_job: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(function: Callable[[dict[str, Any]], None], workers: int = 1, **config: Any) -> Any:
        job = make_job(resources__workers=workers)
        store = ArtifactStore(open_storage(job.storage))
        with progress_board(workers, "train") as board, user_errors():
            given = {"board": board, "folder": str(tmp_path), **config}
            return run_on_ranks(function, given, job, store, stage="train", name="t")

    return run


def test_only_what_fails_on_nodes_that_live_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts began with a node that has gone since; the third has another one to blame."""
    living = [Node("a", "10.0.0.1", 2, 1), Node("c", "10.0.0.3", 2, 1)]
    monkeypatch.setattr(ranks.capacity, "living_nodes", lambda: living)
    monkeypatch.setattr(ranks, "NODE_SECONDS", 0.0)
    with_lost, now = {"a", "b"}, {"a", "c"}
    assert ranks._crashes([with_lost, with_lost, now]) == 1
    assert ranks._crashes([with_lost, now, now, now]) == 3


@pytest.mark.slow
def test_a_loop_that_raises_three_times_ends_with_its_own_error(fit: Callable[..., Any]) -> None:
    said: list[str] = []
    with console.told_to(said.append), pytest.raises(RuntimeError, match="something of ours, 3"):
        fit(raises)
    notes = [line for line in said if "starts again" in line]
    assert notes == [
        f"train starts again from its last state: something of ours, {n}" for n in (1, 2)
    ]


@pytest.mark.slow
def test_a_mistake_of_the_user_ends_it_at_once(fit: Callable[..., Any]) -> None:
    with pytest.raises(UserError) as ended:
        fit(refuses)
    assert str(ended.value) == "train.lr: too high, 1"


@pytest.mark.slow
def test_a_rank_that_dies_is_replaced_twice(fit: Callable[..., Any], tmp_path: Path) -> None:
    assert fit(dies, deaths=2).error is None
    assert len([*tmp_path.glob("attempt-*")]) == 3


@pytest.mark.slow
def test_a_rank_that_always_dies_is_told(fit: Callable[..., Any]) -> None:
    with pytest.raises(
        UserError, match=r"train: one rank has ended its worker 3 times.*train\.batch"
    ):
        fit(dies, deaths=9)


@pytest.mark.slow
def test_what_an_attempt_reserved_is_free_for_the_next(fit: Callable[..., Any]) -> None:
    with (
        ranks.reports_to(kills_at_once),
        pytest.raises(UserError, match="train: one rank has ended its worker 3 times"),
    ):
        fit(dies, deaths=0)
    states = {group["state"] for group in placement_group_table().values()}
    assert states == {"REMOVED"}


def kills_at_once() -> Any:
    """Ends the workers between their start and what they are told to do."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Kills(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            for worker in worker_group.get_workers():
                ray.kill(worker.actor)

    return Kills()


def test_ranks_listen_where_no_other_host_reaches_them_and_no_process_is_idle(
    fit: Callable[..., Any], tmp_path: Path
) -> None:
    fit(looks_around, workers=2)
    for rank in range(2):
        assert {*(tmp_path / f"rank-{rank}").read_text().split()} == {"127.0.0.1"}
        beside = (tmp_path / f"beside-{rank}").read_text()
        assert beside.count("ray::RayTrainWorker") == 2
        for unused in ("DatasetManager", "PreemptionWatcher", "PlacementGroupCleaner"):
            assert unused not in beside
