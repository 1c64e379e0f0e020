"""What Tune and Ray cost around a trial: `python benchmarks/sweep_overhead.py --help`.

Eight short trainings that differ in their learning rate, on a store that holds everything before the
training: by a plain loop over `cwerm run`, and by `cwerm sweep` with one trial at a time and with two.
Each contestant works on a copy of the store of its own, in turns; wall time of the commands.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from _report import print_ratio, print_table, surroundings

JOB = Path(__file__).parent.parent / "jobs" / "paper" / "sample.yaml"
RATES = [0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12]
CWERM = [sys.executable, "-m", "cwerm.cli"]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    print(surroundings())
    rates = RATES[: options.trials]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _job_file(folder, options.images, options.epochs)
        warm = folder / "warm"
        _cwerm("run", job, "--storage", warm, f"train.lr={rates[0]}", "train.epochs=1")
        seconds: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for contestant, concurrent in (("loop", 0), ("sweep, 1 at a time", 1), ("sweep, 2", 2)):
                store = folder / "store"
                shutil.copytree(warm, store)
                started = time.perf_counter()
                if concurrent:
                    _cwerm("sweep", _sweep_file(folder, rates, concurrent), job, "--storage", store)
                else:
                    for rate in rates:
                        _cwerm("run", job, "--storage", store, f"train.lr={rate}")
                seconds.setdefault(contestant, []).append(time.perf_counter() - started)
                shutil.rmtree(store)
                print(f"{contestant}: {seconds[contestant][-1]:.0f} s", flush=True)
    print_table("contestant", "s", seconds)
    for contestant in [*seconds][1:]:
        asked = ", asked at most 1.15 of the loop"
        print_ratio(contestant, seconds[contestant], seconds["loop"], asked)


def _job_file(folder: Path, images: int, epochs: int) -> Path:
    tree = yaml.safe_load(JOB.read_text())
    tree["data"]["limit"] = images
    tree["train"] |= {"epochs": epochs, "model": "small_cnn"}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _sweep_file(folder: Path, rates: list[float], concurrent: int) -> Path:
    tree = {"space": {"train.lr": {"grid": rates}}, "max_concurrent_trials": concurrent}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _cwerm(*arguments: str | Path) -> None:
    command = [*CWERM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    main()
