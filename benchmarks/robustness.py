"""Methods and controls under label noise and long tails: the table in docs/results.md.

    python benchmarks/robustness.py STORE [--seeds 0 1 2] [--share 1/2] [--only ROW ...] [--table]

Runs every cell that is not in the store yet, one after another; ``--share i/k`` takes every k-th data set,
so that k processes divide the work. ``--table`` prints the tables of the finished cells as Markdown.

All stages run as in ``cwerm run``, but for train: its loop runs in this process, without the workers that
Ray Train would start for each cell (about 15 s of them on two cores, for trainings of 10 to 20 s).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from cwerm.algorithms.training.ranks import Ranks
from cwerm.job.tree import Job, load_job
from cwerm.pipeline import PIPELINE, plan
from cwerm.runs.folder import weight_scores
from cwerm.stages import train
from cwerm.stages.train import loop as train_loop

JOB = Path(__file__).parent.parent / "jobs" / "robustness.yaml"
SOURCES: dict[str, list[str]] = {
    "clean": ["data.noise=none"],
    "40 % symmetric": ["data.noise=symmetric"],
    "40 % pair flip": ["data.noise=flip"],
    # as many samples as the others after the tail is cut, and 10 a class for the meta set
    "long tail 1/50": ["data.noise=none", "data.imbalance=50", "data.limit=18000"],
}
REGIMES: dict[str, list[str]] = {
    "short": ["train.epochs=10", "train.crop_padding=2", "train.flip=true"],
    "long": ["train.epochs=20"],
}
META_WEIGHT_NET = ["reweight.method=metaweightnet"]
ON_IMAGES = ["reweight.input=images", "reweight.model=small_cnn", "reweight.weight_decay=0.0005"]
ROWS: dict[str, list[str]] = {
    "ERM": ["method=erm"],
    "C-random-ERM": ["method=c-random-erm"],
    "C-moderate-ERM": ["method=c-moderate-erm"],
    "W-ERM, images": ["method=w-erm", *ON_IMAGES, "reweight.lr=0.1", "reweight.epochs=20"],
    "W-ERM, features": ["method=w-erm"],
    "CW-ERM, paper": ["coreset.method=moderate", *META_WEIGHT_NET, "broadcast.method=nearest"],
    "CW-ERM, agreement": [*META_WEIGHT_NET, "broadcast.method=agreement"],
    "CW-ERM, auto": [],
    "auto, permuted": ["control=permuted"],
    "auto, untrained": ["control=untrained"],
}


def job_of(store: str, source: str, regime: str, row: str, seed: int) -> Job:
    """The job of one cell; noise and draws differ from seed to seed, too."""
    words = [source, regime, row, f"seed{seed}"]
    name = "-".join(w.replace(" ", "").replace(",", "-").replace("/", "to") for w in words)
    overrides = [
        *SOURCES[source],
        *REGIMES[regime],
        *ROWS[row],
        f"seed={seed}",
        f"data.split_seed={seed}",
        f"name={name.replace('%', '')}",
    ]
    return load_job(JOB, overrides, {"storage": store})


def cells(sources: list[str], seeds: list[int], rows: list[str]) -> list[tuple[str, str, str, int]]:
    """All cells, one seed after the other, so that an early end leaves whole seeds."""
    return [
        (source, regime, row, seed)
        for seed in seeds
        for source in sources
        for row in rows
        for regime in REGIMES
    ]


def run_cell(job: Job) -> None:
    """Run one cell and write its figures."""
    steps = plan(job)
    store = steps.store
    made = {name: steps.execute(name).artifact for name in steps.names[:-1]}
    started = time.perf_counter()
    config = train.loop_inputs(steps["train"].settings, steps.inputs("train"), store)
    worker = train_loop.Worker(config, Ranks())
    for epoch in range(job.train.epochs):
        worker.train_epoch(epoch)
    last = worker.history[-1]
    figures = {
        "test_accuracy": last["test_accuracy"],
        "train_accuracy": last["train_accuracy"],
        "epoch_seconds": statistics.mean(epoch["seconds"] for epoch in worker.history),
        "seconds": {name: artifact.seconds for name, artifact in made.items()}
        | {"train": time.perf_counter() - started},
    }
    if "broadcast" in made:
        figures["weights"] = weight_scores(steps)
    text = json.dumps(figures, indent=1).encode()
    store.storage.write_bytes(f"cells/{job.name}.json", text)
    print(job.name, f"{100 * last['test_accuracy']:.2f}", flush=True)


def finished(store: str, job: Job) -> dict[str, Any] | None:
    """The figures of a cell, if it is done."""
    path = Path(store, "cells", f"{job.name}.json")
    return json.loads(path.read_text()) if path.exists() else None


def table(store: str, seeds: list[int], rows: list[str], key: str, factor: float = 1) -> str:
    """One figure of all cells, mean and standard deviation over the seeds, as Markdown."""
    columns = [(source, regime) for source in SOURCES for regime in REGIMES]
    lines = [
        "| | " + " | ".join(f"{source}, {regime}" for source, regime in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for row in rows:
        texts = []
        for source, regime in columns:
            made = [finished(store, job_of(store, source, regime, row, s)) for s in seeds]
            found = [_figure(figures, key) for figures in made if figures]
            values = [factor * value for value in found if value is not None]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            texts.append(f"{statistics.mean(values):.2f}{spread}" if values else "")
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _figure(figures: dict[str, Any], key: str) -> float | None:
    for part in key.split("."):
        figures = figures.get(part, {})
    return figures if isinstance(figures, float) else None


def main() -> None:
    """Run the cells of this share, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        keys = ["test_accuracy", "train_accuracy", "weights.auroc"]
        keys += ["weights.effective_sample_size", "weights.class_weight_ratio"]
        keys += [f"seconds.{stage.name}" for stage in PIPELINE]
        for key in keys:
            factor = 100 if key.endswith("accuracy") else 1
            print(f"\n{key}\n")
            print(table(arguments.store, arguments.seeds, arguments.only, key, factor))
        return
    torch.set_num_threads(1)
    share, shares = map(int, arguments.share.split("/"))
    sources = list(SOURCES)[share::shares]
    for source, regime, row, seed in cells(sources, arguments.seeds, arguments.only):
        job = job_of(arguments.store, source, regime, row, seed)
        if finished(arguments.store, job) is None:
            run_cell(job)


if __name__ == "__main__":
    main()
