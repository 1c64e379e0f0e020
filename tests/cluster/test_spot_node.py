"""A node that goes in mid-epoch and comes back: batches are those of a training that nothing disturbed."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET

from cluster.bucket_cluster import Cluster, three_hosts
from cluster.hosts import obstacle, wait_for
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.streaming.batches import StreamedBatches
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.stages.train import loop_inputs
from cwerm.stages.train.loop import Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]

SCRIPT = Path(__file__).with_name("recorded_training.py")
STEPS, STEP_SECONDS = 400, 0.6
PHASE_SECONDS = 500
TREE: dict[str, Any] = {
    "name": "spot",
    "method": "erm",
    "storage": f"s3://{BUCKET}/spot",
    "data": {"source": "sample", "limit": 3200, "rows_per_part": 100},
    "train": {
        "model": "small_cnn",
        "epochs": 1,
        "batch_size": 8,
        "memory_bytes": 0,  # streamed
        "checkpoint_minutes": 0.1,
    },
    "resources": {"workers": 4, "min_workers": 3},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Four CPUs, one of them on a node of its own."""
    with three_hosts(first=3, second=1) as started:
        yield started


def records(folder: Path) -> list[dict[str, Any]]:
    """What the ranks have written down so far, in the order of time."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return sorted(whole, key=lambda record: record["time"])


def worlds(folder: Path) -> list[int]:
    """How many ranks there were, one after the other."""
    return [world for world, _ in groupby(record["world"] for record in records(folder))]


def undisturbed() -> list[list[list[Any]]]:
    """The samples of each batch, as one rank takes them alone: their numbers, and digests of the inputs."""
    steps = plan(parse_job(TREE))
    settings: Any = steps["train"].settings
    worker = Worker(loop_inputs(settings, steps.inputs("train"), steps.store), Ranks())
    batches = worker.data.batches
    assert isinstance(batches, StreamedBatches)
    return [
        [
            [sample, hashlib.sha256(row.numpy().tobytes()).hexdigest()]
            for sample, row in zip(order.tolist(), batch.inputs, strict=True)
        ]
        for order, batch in zip(batches.order(0), batches.epoch(0), strict=True)
    ]


def test_four_ranks_then_three_then_four(cluster: Cluster, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        parse_job(TREE | {"resources": TREE["resources"] | {"address": "auto"}}).to_yaml()
    )
    words = [sys.executable, SCRIPT, job, tmp_path, STEP_SECONDS]
    command = cluster.script(f"exec {shlex.join(map(str, words))}")
    spot = cluster.workers[1]
    checkpoint = "runs/spot/checkpoints/*/within_*/state.pt"
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen(
            cluster.head.command("bash", "-c", command), stdout=out, stderr=subprocess.STDOUT
        )

        def until(reached: Callable[[], Any]) -> None:
            wait_for(lambda: running.poll() is not None or reached(), PHASE_SECONDS)
            assert running.poll() is None, "it has ended"

        try:
            until(lambda: cluster.objects(TREE["storage"], checkpoint))
            assert worlds(tmp_path) == [4]
            spot.cut()
            moment = time.monotonic()
            until(lambda: worlds(tmp_path)[-1] == 3)
            tell(f"three ranks {time.monotonic() - moment:.0f} s after the cut")
            spot.join()
            spot.shell("ray stop --force")  # as one that was switched off and on; its own alone
            cluster.start_worker(spot)
            moment = time.monotonic()
            until(lambda: worlds(tmp_path)[-1] == 4)
            tell(f"four ranks {time.monotonic() - moment:.0f} s after it came back")
            assert running.wait(2 * PHASE_SECONDS) == 0
        finally:
            cluster.head.end("recorded_training")
            running.wait()
            tell((tmp_path / "out").read_text())

    expected = undisturbed()
    assert len(expected) == STEPS
    found = records(tmp_path)
    assert worlds(tmp_path) == [4, 3, 4]
    begins = [next(group)["step"] for _, group in groupby(found, lambda record: record["world"])]
    assert 0 == begins[0] < begins[1] < begins[2] < STEPS - 1, "taken up in mid-epoch"
    tell(f"the steps from which there were 4, 3 and 4 ranks: {begins}")

    taken: dict[tuple[int, int], dict[int, list[Any]]] = {}
    for record in found:
        shares = taken.setdefault((record["step"], record["world"]), {})
        again = shares.setdefault(record["rank"], record["samples"])
        assert again == record["samples"], "a step that is done again takes the same"
    whole = {
        (step, world): [sample for rank in range(world) for sample in shares[rank]]
        for (step, world), shares in taken.items()
        if len(shares) == world  # a rank that was lost may have had no time for its line
    }
    assert {step for step, _ in whole} == {*range(STEPS)}
    for (step, _), samples in whole.items():
        assert samples == expected[step]
    done_again = len(whole) - STEPS
    tell(f"{len(whole)} batches of {STEPS} steps, all as undisturbed; {done_again} were done again")


def tell(line: str) -> None:
    """Shown by `pytest -s`."""
    sys.stdout.write(f"\n{line}\n")
