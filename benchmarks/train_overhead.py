"""What Ray Train adds to an epoch: `python benchmarks/train_overhead.py --help`.

Whole runs in alternating fresh processes: the train stage with two workers, and a plain loop on two
gloo processes with the same data, model, batches, augmentation, one evaluation and one checkpoint an
epoch. `epoch` runs from one epoch's start to the next, so that evaluation, reporting and the
checkpoint count; `loop` is the training steps alone; `cpu` is the processor time of rank 0 in an
epoch, which other programs disturb least. The first epoch of each run warms up and does not count. A
ratio is of two runs' medians, one right after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _report import print_ratio, print_table, surroundings

from cwerm.job.tree import Job, load_job
from cwerm.pipeline import plan
from cwerm.stages import common, pixels
from cwerm.stages.classifiers import create_classifier
from cwerm.stages.plan import Plan
from cwerm.stages.train import loop as train_loop

JOB = Path(__file__).parent.parent / "jobs" / "paper" / "sample.yaml"
WORKERS = 2
CONTESTANTS = ("plain", "stage")
# "starts" and "cpu" (the process's clock): at each epoch's start and at the end; "loop", "loss": one
# an epoch
Times = dict[str, list[float]]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4, help="at least 2; the first warms up")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000, help="of the sample's 10,000")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        _contest(options.contestant, options.folder, options.images, options.epochs)
        return
    print(surroundings())
    runs: dict[str, list[Times]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        for round_ in range(options.rounds):
            folder = Path(name, str(round_))  # a run that finds its checkpoints would go on
            folder.mkdir()
            _start("ingest", folder, options.images, options.epochs)
            for contestant in CONTESTANTS:
                runs[contestant].append(_start(contestant, folder, options.images, options.epochs))
            print(f"round {round_ + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
            _compare(runs["plain"][-1], runs["stage"][-1])
    medians: dict[str, list[float]] = {}
    for span, values_of in _SPANS.items():
        table = {f"{name}, {span}": [values_of(run) for run in runs[name]] for name in CONTESTANTS}
        print_table(
            f"{span} of {options.images} images",
            "s",
            {name: [value for run in values for value in run] for name, values in table.items()},
        )
        medians |= {name: [*map(statistics.median, values)] for name, values in table.items()}
    print()
    for span in _SPANS:
        asked = " (at most 1.10 is asked for)" if span == "epoch" else ""
        name = f"{span}: stage / plain"
        print_ratio(name, medians[f"stage, {span}"], medians[f"plain, {span}"], asked)


_SPANS: dict[str, Callable[[Times], list[float]]] = {
    "epoch": lambda run: np.diff(run["starts"])[1:].tolist(),
    "loop": lambda run: run["loop"][1:],
    "cpu": lambda run: np.diff(run["cpu"])[1:].tolist(),
}


def _compare(plain: Times, stage: Times) -> None:
    """Both must have done the same work: the first epoch's loss agrees."""
    losses = plain["loss"][0], stage["loss"][0]
    if not np.isclose(*losses, rtol=0.01):
        sys.exit(f"the two trained differently: losses {losses} of the first epoch")


def _start(contestant: str, folder: Path, images: int, epochs: int) -> Times:
    arguments = ["--contestant", contestant, "--folder", folder]
    arguments += ["--images", images, "--epochs", epochs]
    subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True)
    result: Times = json.loads((folder / "times.json").read_text())
    return result


def _contest(contestant: str, folder: Path, images: int, epochs: int) -> None:
    overrides = [f"storage={folder / 'store'}", "method=erm", f"resources.workers={WORKERS}"]
    steps = plan(load_job(JOB, [*overrides, f"data.limit={images}", f"train.epochs={epochs}"]))
    for name in ("ingest", "label"):
        steps.execute(name)
    times: Times = {}
    if contestant == "plain":
        times = _plain(steps, folder)
    elif contestant != "ingest":
        times = _stage(steps, folder)
    (folder / "times.json").write_text(json.dumps(times))


# --- the stage -----------------------------------------------------------------------------------


def _stage(steps: Plan, folder: Path) -> Times:
    starts = folder / "starts"

    def timed_worker(config: dict[str, Any]) -> None:
        import ray.train

        def note() -> None:
            if ray.train.get_context().get_world_rank() == 0:
                with starts.open("a") as file:
                    file.write(f"{time.time()} {time.process_time()}\n")

        class TimedWorker(train_loop.Worker):
            def train_epoch(self, epoch: int, on_step: Any = None) -> dict[str, Any]:
                note()
                return super().train_epoch(epoch, on_step)

        train_loop.Worker = TimedWorker  # type: ignore[misc]
        train_loop.train_worker(config)  # in a worker's process, which is not patched
        note()

    train_loop.train_worker = timed_worker
    artifact = steps.execute("train").artifact
    history = json.loads(steps.store.read_file(artifact, "history.json"))
    clocks = np.loadtxt(starts)
    return {
        "starts": clocks[:, 0].tolist(),
        "cpu": clocks[:, 1].tolist(),
        "loop": [epoch["seconds"] for epoch in history],
        "loss": [epoch["train_loss"] for epoch in history],
    }


# --- the plain loop ------------------------------------------------------------------------------


def _plain(steps: Plan, folder: Path) -> Times:
    import torch.multiprocessing

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29591"}
    torch.multiprocessing.spawn(_plain_rank, (steps.job, folder), nprocs=WORKERS)
    times: Times = json.loads((folder / "plain.json").read_text())
    return times


def _plain_rank(rank: int, job: Job, folder: Path) -> None:
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from cwerm.algorithms.training import erm, evaluation
    from cwerm.algorithms.training.batches import Normaliser

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
    section, seed = job.train, job.seed
    steps = plan(job)
    store, made = steps.store, steps.inputs("train")
    artifact = made["ingest"]
    size = pixels.square_size(section.image_size, artifact)
    held_out = steps["train"].settings.held_out
    names = artifact.info["class_names"]
    every = np.arange(artifact.rows("images"))
    images = pixels.take_pixels(store, artifact, "images", every, size)
    labels = common.labels_of(store, made["label"]).astype(np.int64)
    kept = np.setdiff1d(np.arange(len(labels)), held_out.ids(store, made["label"], names))
    normalise = Normaliser.of(images[kept])
    x, y = torch.from_numpy(images[kept]), torch.from_numpy(labels[kept])
    weights = torch.ones(len(y))
    every = np.arange(artifact.rows("test_images"))
    test_images = pixels.take_pixels(store, artifact, "test_images", every, size)
    given = common.column(store.read(made["label"], "test_labels", ["label"]), "label")
    test_labels = given.astype(np.int64)
    test_x = torch.from_numpy(test_images[rank::WORKERS])
    test_y = torch.from_numpy(test_labels[rank::WORKERS])
    classes = len(artifact.info["class_names"])
    model = create_classifier("train.model", section.model, classes, size, seed)
    model = model.to(memory_format=torch.channels_last)
    parallel = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.SGD(
        model.parameters(), section.lr, section.momentum, weight_decay=section.weight_decay
    )
    times: Times = {"starts": [], "cpu": [], "loop": [], "loss": []}

    def note() -> None:
        times["starts"].append(time.time())
        times["cpu"].append(time.process_time())

    sizes = erm.batch_sizes(len(y), section.batch_size)
    for epoch in range(section.epochs):
        note()
        offsets, flips = erm.augmentation_draws(len(y), seed, epoch, section.crop_padding)
        batches = erm.epoch_batches(len(y), section.batch_size, seed, epoch, WORKERS, rank)
        model.train()
        loss_sum = torch.zeros(1)
        started = time.perf_counter()
        for step, rows in enumerate(batches):
            lr = erm.cosine_lr(
                epoch * len(batches) + step, section.epochs * len(batches), section.lr
            )
            optimizer.param_groups[0]["lr"] = lr
            crops = erm.crop_and_flip(x[rows], offsets[rows], flips[rows], section.crop_padding)
            loss = erm.weighted_loss(
                parallel(normalise(crops)), y[rows], weights[rows], sizes[step], WORKERS
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * sizes[step] / WORKERS
        dist.all_reduce(loss_sum)
        times["loop"].append(time.perf_counter() - started)
        times["loss"].append(loss_sum.item() / len(y))
        model.eval()
        with torch.inference_mode():
            guesses = evaluation.logits_of(model, test_x, normalise).argmax(1)
        correct = (guesses == test_y).sum()
        dist.all_reduce(correct)
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, folder / f"plain-{epoch}.pt")
        dist.barrier()
    note()
    if rank == 0:
        (folder / "plain.json").write_text(json.dumps(times))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
