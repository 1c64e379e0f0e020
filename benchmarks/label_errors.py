"""Which methods find wrong labels: the study in docs/results.md, cell by cell.

    python benchmarks/label_errors.py OUT detect [--data fashion] [--seeds 0 1 2 3 4] [--share 1/2]
    python benchmarks/label_errors.py OUT gate | rate | cost
    python benchmarks/label_errors.py OUT detect --table

Each finished cell is a file in OUT, and a cell that is there is not run again: start the same command anew
after an interruption. `--share i/k` takes every k-th cell, so that k processes divide the work; `--only`
runs some methods, `--again` runs these anew. Needs the optional dependencies `benchmarks`, and Fashion-MNIST
in `--data-root` (which is filled where the network allows) or from Debian's package.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _report import surroundings
from label_noise import aims, cost, gate, tables
from label_noise.figures import figures
from label_noise.methods import FAMILIES, NOTHING_CLEAN, WITH_TRUSTED
from label_noise.records import read_record, record_path, write_record
from label_noise.scenes import CELLS, DETECTION, Scene, draw_scene
from label_noise.sources import DATA, load_pool

TRUSTED = {"nothing": (), "trusted": (10,)}
TRUSTED_OF_CLUSTERS = (2, 1)  # of a hundred classes
RATES = {
    "nothing": [
        *("clean", "symmetric 10", "symmetric 20", "symmetric 40", "symmetric 60"),
        *("annotators 15", "annotators", "annotators 40"),
    ],
    "trusted": [
        *("clean", "symmetric 10", "symmetric 20", "symmetric 40", "symmetric 60", "symmetric 80"),
        *("annotators 15", "annotators", "annotators 40"),
    ],
}
GATE_DATA = (*DATA, "mixture")
SEEDS = {"detect": range(5), "rate": range(20), "gate": range(1000, 1100), "cost": range(1)}

Work = tuple[str, str, str, int]  # data, cell, what is given, seed


def works(arguments: argparse.Namespace) -> Iterator[Work]:
    """All cells of the mode, one seed after the other, so that an early end leaves whole seeds."""
    for seed in arguments.seeds:
        for data in arguments.data:
            if arguments.mode == "gate":
                yield from ((data, cell, "gate", seed) for cell in _gate_cells(arguments, data))
                continue
            for given in arguments.given:
                cells = DETECTION if arguments.mode == "detect" else RATES[given]
                chosen = [cell for cell in cells if cell in (arguments.cells or cells)]
                yield from ((data, cell, given, seed) for cell in chosen)


def _gate_cells(arguments: argparse.Namespace, data: str) -> list[str]:
    known = ["clean", *gate.TRUSTED] if data == "mixture" else gate.GATE_CELLS
    return [cell for cell in known if cell in (arguments.cells or known)]


def scene_of(arguments: argparse.Namespace, work: Work) -> Scene:
    """What the methods are given in this cell."""
    data, cell, given, seed = work
    cache = arguments.out / "features"
    if arguments.mode == "gate":
        return gate.gate_scene(data, cell, seed, arguments.data_root, cache)
    pool = load_pool(data, seed, arguments.data_root, cache)
    trusted = TRUSTED[given]
    if trusted and CELLS[cell].clusters:
        trusted = TRUSTED_OF_CLUSTERS
    return draw_scene(pool, data, CELLS[cell], seed, trusted)


def families_of(arguments: argparse.Namespace, given: str) -> list[str]:
    """The methods that take part, in the order they run in."""
    if arguments.mode != "detect":
        return arguments.only or ["ours"]
    known = WITH_TRUSTED if given == "trusted" else NOTHING_CLEAN
    return [family for family in known if family in (arguments.only or known)]


def run(arguments: argparse.Namespace) -> None:
    """Run what is not finished yet."""
    share, shares = map(int, arguments.share.split("/"))
    for work in list(works(arguments))[share::shares]:
        data, cell, given, seed = work
        path = record_path(arguments.out, arguments.mode, data, cell, given, seed)
        record = read_record(path)
        asked = families_of(arguments, given)
        left = [family for family in asked if arguments.again or family not in record]
        scene = scene_of(arguments, work) if left else None
        for family in left:
            assert scene is not None
            made = timed(family, scene)
            rows = {row: figures(scene, verdict) for row, verdict in made["verdicts"].items()}
            record = read_record(path) | {
                family: {
                    "rows": rows,
                    "seconds": made["seconds"],
                    "processor_seconds": made["processor_seconds"],
                }
            }
            write_record(path, record)
            for row, found in rows.items():
                told = " ".join(
                    f"{name} {value:.3f}"
                    for name, value in found.items()
                    if value is not None and name in ("auroc", "f1", "rate", "true_rate", "opened")
                )
                print(f"{data}, {cell}, {given}, {seed}: {row}: {told}", flush=True)


def timed(family: str, scene: Scene) -> dict[str, Any]:
    """What a family of methods says, and what that took."""
    wall, used = time.perf_counter(), time.process_time()
    verdicts = FAMILIES[family](scene)
    return {
        "verdicts": verdicts,
        "seconds": time.perf_counter() - wall,
        "processor_seconds": time.process_time() - used,
    }


def print_tables(arguments: argparse.Namespace) -> None:
    """The finished cells as Markdown, and the aims that they meet."""
    out, seeds = arguments.out, arguments.seeds
    if arguments.mode == "cost":
        print(cost.cost_table(out))
        return
    if arguments.mode == "gate":
        cells = [(d, c, "gate") for d in arguments.data for c in _gate_cells(arguments, d)]
        print(tables.gate_table(out, cells))
        return
    if arguments.mode == "rate":
        every = [(d, c, g) for d in arguments.data for g in arguments.given for c in RATES[g]]
        print(tables.rate_table(out, every, seeds), "\n")
        print("\n".join(aims.rate_aims(out, every, seeds)))
        return
    cells_shown = arguments.cells or DETECTION
    for data in arguments.data:
        for given in arguments.given:
            print(tables.detection_tables(out, data, given, cells_shown, seeds, arguments.figures))
            print()
        print("\n".join(aims.detection_aims(out, data, cells_shown, seeds)), "\n")


def main() -> None:
    """Run the cells of this share, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("mode", choices=list(SEEDS))
    parser.add_argument("--data", nargs="+", choices=GATE_DATA)
    parser.add_argument("--given", nargs="+", choices=list(TRUSTED), default=list(TRUSTED))
    parser.add_argument("--cells", nargs="+", choices=[*CELLS, *gate.GATE_CELLS])
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES))
    parser.add_argument("--again", action="store_true", help="run what is finished, too")
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figures", nargs="+", choices=list(tables.FIGURES), default=[])
    parser.add_argument("--one", type=int, nargs=3, help="one size of `cost`, in this process")
    arguments = parser.parse_args()
    arguments.data = arguments.data or (GATE_DATA if arguments.mode == "gate" else DATA)
    arguments.seeds = arguments.seeds or list(SEEDS[arguments.mode])
    if arguments.table:
        print_tables(arguments)
    elif arguments.one:
        print(json.dumps(cost.measure(*arguments.one)))
    elif arguments.mode == "cost":
        cost.measure_all(__file__, arguments.out, cost.SIZES)
    else:
        torch.set_num_threads(arguments.threads)
        print(surroundings(), flush=True)
        run(arguments)


if __name__ == "__main__":
    main()
