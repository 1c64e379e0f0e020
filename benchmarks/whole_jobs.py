"""CW-ERM and W-ERM beside ERM, whole jobs: `python benchmarks/whole_jobs.py [--epochs 15]`.

jobs/paper/sample.yaml (10,000 images of Fashion-MNIST, ResNet20), each method as a command of its own in a
fresh store: from the start of Python to the end of the report. Processor seconds are those of all processes.
W-ERM learns weights on the features of all samples, as the job's Meta-Weight-Net does for the coreset;
`--images` adds W-ERM as in the paper, with the classifier itself, on the images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from _processes import Spent, run_counted
from _report import print_ratio, print_table, surroundings

JOB = Path(__file__).parents[1] / "jobs" / "paper" / "sample.yaml"
METHODS = ("erm", "cw-erm", "w-erm")
SHOWN = 14


def _run(method: str, epochs: int, overrides: list[str]) -> Spent:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cwerm.cli", "run", JOB, "--storage", f"{folder}/store"]
        settings = [f"method={method}", f"train.epochs={epochs}", *overrides]
        return run_counted([*command, *settings])


def main() -> None:
    """Run all methods in each round and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--images", action="store_true", help="W-ERM on images, too")
    options = parser.parse_args()
    print(surroundings(), flush=True)
    on_images = ["reweight.input=images", "reweight.model=resnet20", "reweight.lr=0.1"]
    on_images += [f"reweight.epochs={options.epochs}"]
    contestants: dict[str, tuple[str, list[str]]] = {name: (name, []) for name in options.methods}
    if options.images:
        contestants["w-erm on images"] = "w-erm", on_images
    runs: dict[str, list[Spent]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, (method, overrides) in contestants.items():
            spent = _run(method, options.epochs, overrides)
            runs[name].append(spent)
            print(
                f"{name}: {spent.cpu_seconds:.1f} CPU-s, {spent.seconds:.0f} s, "
                f"{spent.processes} processes; {surroundings().split(';')[0]}"
            )
            for title, seconds in spent.by_name[:SHOWN]:
                print(f"    {seconds:7.1f}  {title}", flush=True)
    cpu = {name: [spent.cpu_seconds for spent in each] for name, each in runs.items()}
    print_table(f"{options.epochs} epochs", "CPU-s", cpu)
    for name in contestants:
        if name != "erm" and "erm" in cpu:
            asked = " (at most 1.15 is asked for)" if name == "cw-erm" else ""
            print_ratio(f"{name} / erm", cpu[name], cpu["erm"], asked)


if __name__ == "__main__":
    main()
