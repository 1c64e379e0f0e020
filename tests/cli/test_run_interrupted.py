"""Ctrl-C in a run: it ends at once, and goes on when it is started again."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import Finished, process, start, write_job

from cwerm import load_weights

STAGES = ["ingest", "extract", "select", "reweight", "broadcast", "train"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ingest", "extract", "reweight", "train"])
def test_interrupted_and_run_again(finished: Finished, tmp_path: Path, stage: str) -> None:
    """Ctrl-C while a stage computes: exit code 130 and one line; the same command then finishes."""
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    for made in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(store / "artifacts" / made)
    shutil.rmtree(store / "runs")
    # long enough that it is not over when the signal comes
    longer = ["train.epochs=60"] if stage == "train" else []
    command = ["run", finished.job, *longer, "--storage", store]
    with start(*command) as running:
        if stage == "train":
            wait_for(lambda: list(store.glob("runs/small/events/*/*")))
        else:
            wait_for(lambda: list(store.glob(f"artifacts/{stage}/*/*")) or running.poll())
            time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    message = "cwerm: interrupted; run the same command again to go on from here\n"
    assert (running.returncode, err) == (130, message), out
    assert not (store / "runs" / "small" / "summary.json").exists()
    again = process(*command)
    again.succeeded()
    assert load_weights(str(finished.folder)).equals(load_weights(f"{store}/runs/small"))


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_interrupted_before_anything(finished: Finished, tmp_path: Path) -> None:
    job = write_job(tmp_path, yaml.safe_load(finished.job.read_text()))
    with start("run", job, "--storage", tmp_path / "store") as running:
        wait_for(lambda: (tmp_path / "store").exists())
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err.count("\n")) == (130, 1)
    assert err.startswith("cwerm: interrupted; run the same command again")
    assert not list(tmp_path.rglob("summary.json"))
