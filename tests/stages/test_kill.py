"""SIGKILL in the middle of a stage: the command run again ends with what an undisturbed run gives.

The reference is the chain that the session ran. A killed command is ``python -m cwerm.cli``, as a
user starts it; what it has put into the storage says when to strike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load

from cwerm.job.tree import parse_job
from cwerm.stages import common
from cwerm.store.artifacts import Artifact
from stages.conftest import Chain, Fork, run_stages

PATIENCE = 120.0
LONG_REWEIGHT = {"reweight__epochs": 1500}  # some ten seconds, so that a state is saved midway


WHO = pytest.mark.parametrize("who", ["driver", "worker"])


class Command:
    """``cwerm stage NAME JOB`` in a process of its own."""

    def __init__(self, chain: Chain, stage: str, folder: Path) -> None:
        job = folder / "job.yaml"
        job.write_text(chain.job.to_yaml())
        self.log = folder / "log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment["RAY_worker_niceness"] = "0"
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "cwerm.cli", "stage", stage, str(job)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
                cwd=folder,
            )

    def wait_until(self, reached: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None, f"it ended too early: {self.log.read_text()}"
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the command itself; Ray's node and workers must notice and end."""
        below = self.process.children(recursive=True)
        agents = [process for process in below if "Agent" in process.name()]
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs([p for p in below if p not in agents], timeout=60)
        assert not alive, "Ray outlived its driver"
        for agent in agents:  # Ray's monitoring agents take minutes to notice
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.kill()

    def kill_worker(self, title: str) -> None:
        """Kill one Ray worker that carries this title."""

        def workers() -> Iterator[psutil.Process]:
            for process in self.process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if title in " ".join(process.cmdline()):
                        yield process

        worker = next(workers())
        os.kill(worker.pid, signal.SIGKILL)

    def finish(self) -> str:
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        return self.log.read_text()


def committed(mine: Chain, stage: str) -> Artifact | None:
    return mine.store.find(stage, mine.plan[stage].key)


def folder_of(mine: Chain, stage: str) -> Path:
    return Path(mine.job.storage, "artifacts", stage, mine.plan[stage].key)


def checkpoints(mine: Chain) -> list[Path]:
    key = mine.plan["train"].key
    return list(Path(mine.job.storage, "runs/small/checkpoints", key).glob("*/state.pt"))


def assert_same_weights(mine: Chain, reference: Chain) -> None:
    """Run what is left up to the weights, which must be those of the reference exactly."""
    found = run_stages(mine.job, "broadcast")
    for stage, table, name in (
        ("extract", "features", "feature"),
        ("reweight", "coreset_weights", "weight"),
        ("broadcast", "weights", "weight"),
    ):
        values, expected = (common.column(c.table(stage, table), name) for c in (found, reference))
        assert np.array_equal(values, expected), table


@pytest.mark.slow
@WHO
def test_killed_during_extract(who: str, fork: Fork, chain: Chain, tmp_path: Path) -> None:
    mine = fork("extract", resources__workers=2)
    parts = folder_of(mine, "extract") / "parts"
    command = Command(mine, "extract", tmp_path)
    command.wait_until(lambda: parts.exists() and len(list(parts.glob("features-*.json"))) >= 2)
    if who == "driver":
        command.kill()
        assert committed(mine, "extract") is None, "struck too late"
        finished = {path.name: path.read_bytes() for path in parts.glob("features-*.json")}
        log = Command(mine, "extract", tmp_path).finish()
        assert f"{len(finished)} part(s) were finished by an earlier attempt" in log
        for name, marker in finished.items():
            assert (parts / name).read_bytes() == marker
    else:
        command.kill_worker("_Embedder")
        assert committed(mine, "extract") is None, "struck too late"
        command.finish()
    found, expected = (
        c.table("extract", "features") for c in (run_stages(mine.job, "extract"), chain)
    )
    assert found.column("feature").equals(expected.column("feature"))


@pytest.fixture(scope="module")
def long_reweight(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The reference of a reweighting that takes some seconds."""
    folder = tmp_path_factory.mktemp("long") / "store"
    shutil.copytree(chain.job.storage, folder)
    tree = chain.job.model_dump()
    tree["storage"] = str(folder)
    tree["reweight"]["epochs"] = LONG_REWEIGHT["reweight__epochs"]
    return run_stages(parse_job(tree), "broadcast")


@pytest.mark.slow
@WHO
def test_killed_during_reweight(who: str, fork: Fork, long_reweight: Chain, tmp_path: Path) -> None:
    mine = fork("reweight", **LONG_REWEIGHT)
    state = folder_of(mine, "reweight") / "state.pt"
    command = Command(mine, "reweight", tmp_path)
    command.wait_until(state.exists)
    if who == "driver":
        command.kill()
        assert committed(mine, "reweight") is None, "struck too late"
        assert state.exists()
        log = Command(mine, "reweight", tmp_path).finish()
        assert "goes on from the state that an earlier attempt saved" in log
    else:
        command.kill_worker("_Reweighter")
        command.finish()
    assert not state.exists()
    assert_same_weights(mine, long_reweight)


@pytest.mark.slow
@WHO
def test_killed_during_train(who: str, fork: Fork, trained: Chain, tmp_path: Path) -> None:
    mine = fork("train", resources__workers=2)
    command = Command(mine, "train", tmp_path)
    command.wait_until(lambda: checkpoints(mine))
    if who == "driver":
        command.kill()
        assert committed(mine, "train") is None, "struck too late"
        (claim,) = (folder_of(mine, "train") / "claims").glob(
            "*.json"
        )  # not what a kill left half-written
        killed = json.loads(claim.read_bytes())["seconds"]
        Command(mine, "train", tmp_path).finish()
        artifact = committed(mine, "train")
        assert artifact
        assert artifact.seconds > killed + artifact.info["seconds"]
        history = json.loads(mine.store.read_file(artifact, "history.json"))
        # a kill may cost the seconds since the last beat, and what epochs took is known to be in it
        assert artifact.seconds >= sum(epoch["seconds"] for epoch in history)
    else:
        command.kill_worker("RayTrainWorker")
        assert committed(mine, "train") is None, "struck too late"
        command.finish()
    artifact = committed(mine, "train")
    assert artifact
    found = load(mine.store.read_file(artifact, "model.safetensors"))
    expected = load(trained.store.read_file(trained.made["train"], "model.safetensors"))
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    assert artifact.info["test_accuracy"] == trained.made["train"].info["test_accuracy"]


@pytest.mark.slow
def test_killed_between_stages(fork: Fork, chain: Chain, tmp_path: Path) -> None:
    """Struck at once after a commit, the next command finds the artifact and only prints it."""
    mine = fork("broadcast")
    command = Command(mine, "broadcast", tmp_path)
    command.wait_until((folder_of(mine, "broadcast") / "manifest.json").exists)
    command.kill()
    assert "reused" in Command(mine, "broadcast", tmp_path).finish()
    assert_same_weights(mine, chain)
