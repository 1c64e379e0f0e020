"""What weights cost beside training: `python benchmarks/reweighting_cost.py STORE [--epochs 10]`.

On the sample, with ResNet20 and two workers: the stages that `cw-erm` adds (select, reweight, broadcast;
`auto`, a coreset of 5 %) against the training of `erm` and against the reweighting of `w-erm`, which runs
Meta-Weight-Net with the same network on all images for as many epochs as the training. Each round has a
seed of its own, which only ingest and extract do not depend on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import cwerm
from cwerm.job.tree import load_job

JOB = Path(__file__).parent.parent / "jobs" / "paper" / "sample.yaml"
AUTO = [
    "reweight.method=auto",
    "broadcast.method=auto",
    "coreset.method=random",
    "coreset.ratio=0.05",
]
ON_IMAGES = ["reweight.input=images", "reweight.model=resnet20", "reweight.lr=0.1"]


def seconds_of(store: str, epochs: int, seed: int, method: str, overrides: list[str]) -> Any:
    """Seconds of each stage."""
    given = [f"method={method}", f"seed={seed}", f"name={method}-{seed}", f"train.epochs={epochs}"]
    result = cwerm.run(load_job(JOB, [*given, *overrides], {"storage": store}))
    assert "train" not in result.summary["reused"], f"{store} is not fresh"
    return result.summary["seconds"]


def main() -> None:
    """Run all rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    shares: dict[str, list[float]] = {"of ERM's training": [], "of W-ERM's reweighting": []}
    for seed in range(options.rounds):
        given = options.store, options.epochs, seed
        plain = seconds_of(*given, "erm", [])
        coreset = seconds_of(*given, "cw-erm", AUTO)
        full = seconds_of(*given, "w-erm", [*ON_IMAGES, f"reweight.epochs={options.epochs}"])
        added = sum(coreset[stage] for stage in ("select", "reweight", "broadcast"))
        shares["of ERM's training"].append(added / plain["train"])
        shares["of W-ERM's reweighting"].append(added / full["reweight"])
        print(f"seed {seed}: erm {plain}\n  cw-erm {coreset}\n  w-erm {full}")
    for name, values in shares.items():
        print(
            f"select + reweight + broadcast, share {name}: median {statistics.median(values):.3f} "
            f"({min(values):.3f} to {max(values):.3f}, n = {len(values)})"
        )


if __name__ == "__main__":
    main()
