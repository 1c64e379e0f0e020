"""What the scripts of this folder print: the hardware, the versions, and figures of many rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path


def surroundings() -> str:
    """Processor, cores, load of the last minute, and the versions that matter."""
    names = ("torch", "ray", "timm", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}; {versions}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def print_table(title: str, unit: str, rows: Mapping[str, Sequence[float]]) -> None:
    """One line a contestant: n, median, least and greatest."""
    print(f"\n{title:<34}{'n':>4}{'median':>10}{'min':>10}{'max':>10}  {unit}")
    for name, values in rows.items():
        figures = (statistics.median(values), min(values), max(values))
        print(f"{name:<34}{len(values):>4}" + "".join(f"{figure:>10.2f}" for figure in figures))


def print_ratio(name: str, above: Sequence[float], below: Sequence[float], asked: str) -> None:
    """Ratios of the rounds, each within its own round: what else the machine does drops out."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    print(
        f"{name}: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)}){asked}"
    )
