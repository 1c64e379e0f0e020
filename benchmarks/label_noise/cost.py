"""Seconds, processor time and peak memory of one call, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from label_noise.tables import markdown

__all__ = ["SIZES", "cost_table", "measure", "measure_all"]

SIZES = [
    *((50_000, 768, 10), (50_000, 768, 100)),
    *((125_000, 256, 10), (250_000, 256, 10), (500_000, 256, 10), (1_000_000, 256, 10)),
]
NOISE, SPREAD, CHUNK = 0.2, 4.0, 50_000
WARM = 500  # rows of a first call, which loads the libraries


def measure(rows: int, columns: int, classes: int) -> dict[str, float]:
    """The figures of this process, on normal classes with a fifth of the labels drawn anew."""
    import cwerm

    generator = np.random.default_rng(0)
    centres = generator.normal(size=(classes, columns)).astype(np.float32)
    centres *= SPREAD / np.sqrt(columns)
    truth = generator.integers(0, classes, rows)
    features = np.empty((rows, columns), np.float32)
    for start in range(0, rows, CHUNK):  # without a second copy, which would hide what is measured
        part = features[start : start + CHUNK]
        generator.standard_normal(out=part, dtype=np.float32)
        part += centres[truth[start : start + CHUNK]]
    anew = generator.random(rows) < NOISE
    given = np.where(anew, generator.integers(0, classes, rows), truth)
    cwerm.find_label_errors(features[:WARM].copy(), given[:WARM])
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    wall, used = time.perf_counter(), time.process_time()
    found = cwerm.find_label_errors(features, given)
    seconds, processor = time.perf_counter() - wall, time.process_time() - used
    unit = features.nbytes
    order = np.argsort(found.quality)[: int((given != truth).sum())]
    return {
        "rows": rows,
        "columns": columns,
        "classes": classes,
        "seconds": seconds,
        "processor_seconds": processor,
        "added_memory": (_status("VmHWM") - before) / unit,
        "memory": (_status("VmHWM") - before) / unit + 1,
        "found": float((given != truth)[order].mean()),
        "rate": float(found.noise_rate),
        "cores": len(os.sched_getaffinity(0)),
    }


def _status(key: str) -> int:
    """Bytes of resident memory: now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def measure_all(script: str, out: Path, sizes: list[tuple[int, int, int]]) -> None:
    """Each size that is not measured yet, one process after the other."""
    for size in sizes:
        path = _path(out, size)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, script, str(out), "cost", "--one", *map(str, size)]
        made = subprocess.run(words, capture_output=True, text=True)
        if made.returncode:
            print(made.stderr)
            raise SystemExit(f"{size}: the process ended with {made.returncode}")
        path.write_text(made.stdout.splitlines()[-1])
        print(path.name, path.read_text(), flush=True)


def _path(out: Path, size: tuple[int, int, int]) -> Path:
    return out / "cost" / ("x".join(map(str, size)) + ".json")


def cost_table(out: Path) -> str:
    """The finished sizes."""
    body = []
    for size in SIZES:
        if _path(out, size).exists():
            made = json.loads(_path(out, size).read_text())
            body.append(
                [
                    f"{size[0]:,} x {size[1]}, {size[2]} classes",
                    f"{made['seconds']:.1f}",
                    f"{made['processor_seconds']:.1f}",
                    f"{1e6 * made['seconds'] / size[0]:.0f}",
                    f"{made['memory']:.2f}",
                    f"{made['found']:.3f}",
                ]
            )
    head = ["size", "seconds", "processor seconds", "µs a sample", "peak / features", "found"]
    return "**Cost** (peak memory with the features themselves, in units of them)\n\n" + markdown(
        head, body
    )
