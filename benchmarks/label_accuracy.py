"""What finding wrong labels is worth: test accuracies of networks trained on what is made of the labels.

    python benchmarks/label_accuracy.py OUT [--seeds 0 1 2] [--cells clean ...] [--share 1/2] [--only ARM ...]
    python benchmarks/label_accuracy.py OUT --table

5,000 images of Fashion-MNIST, drawn and made wrong as in label_errors.py; tested on 10,000 other images
of its training split. Each finished training is kept in OUT: after an interruption, start the same command
anew.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from _report import surroundings
from label_noise import arms
from label_noise.records import read_record, record_path, write_record
from label_noise.scenes import CELLS, Scene, draw_scene
from label_noise.sources import CHOOSING_SEEDS, load_pool
from label_noise.tables import markdown
from label_noise.training import REGIMES, accuracy, train
from torch import Tensor

from cwerm.data.public.fashion_mnist import FashionMnist

CHOSEN = "the arm that is chosen"
CELLS_SHOWN = ["symmetric 40", "pair 40", "instance 40", "annotators", "clean"]
GIVEN = {"nothing": (), "trusted": (10,)}
TESTED = 10_000
FIRST_TESTED = {True: 20_000, False: 30_000}  # of the training split, to choose and to report

Work = tuple[str, str, str, int]  # regime, cell, what is given, seed


@lru_cache
def pixels(root: str, split: str) -> tuple[Tensor, np.ndarray]:
    """Images uint8 [n, 3, 28, 28], and labels."""
    images, labels = FashionMnist(root).arrays(split)
    return torch.tensor(images)[:, None].expand(-1, 3, -1, -1), labels.astype(np.int64)


def works(arguments: argparse.Namespace) -> Iterator[Work]:
    """All cells, one seed after the other, so that an early end leaves whole seeds."""
    for seed in arguments.seeds:
        for cell in arguments.cells:
            for regime in arguments.regimes:
                yield from ((regime, cell, given, seed) for given in arguments.given)


def arms_of(scene: Scene, given: str, only: list[str]) -> list[str]:
    """The arms of a cell; peers that need nothing clean stand with what is given nothing."""
    known = [*arms.OURS, *arms.CONTROLS]
    for name in arms.PEERS:
        if (name in arms.WITH_TRUSTED) == (given == "trusted"):
            known.append(name)
    return [name for name in known if name in only]


def run(arguments: argparse.Namespace) -> None:
    """Train what is not finished yet."""
    share, shares = map(int, arguments.share.split("/"))
    plain: dict[tuple[str, str, int], float] = {}  # accuracies of plain training
    for regime, cell, given, seed in list(works(arguments))[share::shares]:
        choosing = CHOOSING_SEEDS <= seed < 2 * CHOOSING_SEEDS
        path = record_path(arguments.out, f"accuracy-{regime}", "fashion", cell, given, seed)
        pool = load_pool("fashion", seed, arguments.data_root, arguments.out / "features")
        scene = draw_scene(pool, "fashion", CELLS[cell], seed, GIVEN[given])
        left = [n for n in arms_of(scene, given, arguments.only) if n not in read_record(path)]
        if not left:
            continue
        images = pixels(arguments.data_root, "train" if choosing else "test")[0]
        every, labels = pixels(arguments.data_root, "train")
        tested = slice(FIRST_TESTED[choosing], FIRST_TESTED[choosing] + TESTED)
        made: dict[str, arms.Arm] = {}
        chosen = ""
        if set(left) & {*arms.OURS, *arms.CONTROLS}:
            made, chosen = arms.ours(scene)
        for name in left:
            started = time.process_time()
            arm = made[name] if name in made else arms.peer(name, scene)
            rows = scene.rows if arm.rows is None else scene.rows[arm.rows]
            found = plain.get((regime, cell, seed)) if arm.is_plain else None
            if found is None:
                model = train(
                    images[rows].contiguous(),
                    scene.num_classes,
                    arm.objective,
                    REGIMES[regime],
                    seed,
                )
                found = accuracy(model, every[tested], labels[tested])
            if arm.is_plain:
                plain[regime, cell, seed] = found
            used = time.process_time() - started
            figures = {
                "rows": {name: {"accuracy": found}},
                "seconds": used,
                "chosen": name == chosen,
            }
            write_record(path, read_record(path) | {name: figures})
            print(
                f"{cell}, {regime}, {given}, {seed}: {name}: {found:.4f}, {used:.0f} s", flush=True
            )


def values(
    arguments: argparse.Namespace, name: str, cell: str, regime: str, given: str
) -> list[float]:
    """The accuracies of an arm over the seeds, in %."""
    found = []
    for seed in arguments.seeds:
        path = record_path(arguments.out, f"accuracy-{regime}", "fashion", cell, given, seed)
        for arm, made in read_record(path).items():
            if arm == name or (name == CHOSEN and made["chosen"]):
                found.append(100 * made["rows"][arm]["accuracy"])
    return found


def print_table(arguments: argparse.Namespace) -> None:
    """A table a regime: rows are arms, columns cells."""
    for regime in arguments.regimes:
        body = []
        for given in arguments.given:
            for name in (CHOSEN, *arms.OURS, *arms.CONTROLS, *arms.PEERS):
                found = [values(arguments, name, cell, regime, given) for cell in arguments.cells]
                if any(found):
                    body.append([f"{name} ({given})", *map(_spread, found)])
        print(f"**{regime}**\n\n{markdown(['', *arguments.cells], body)}\n")


def _spread(found: list[float]) -> str:
    if not found:
        return ""
    text = f"{statistics.mean(found):.1f}"
    return text + (f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else "")


def main() -> None:
    """Train the cells of this share, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=CELLS_SHOWN)
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES))
    parser.add_argument("--given", nargs="+", choices=list(GIVEN), default=list(GIVEN))
    every = [*arms.OURS, *arms.CONTROLS, *arms.PEERS]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(arguments)
        return
    torch.set_num_threads(arguments.threads)
    print(surroundings(), flush=True)
    run(arguments)


if __name__ == "__main__":
    main()
