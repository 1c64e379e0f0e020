"""Timing on a device, and counting what waits for it."""

from __future__ import annotations

import io
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

WARM_UP = 3  # steps that choose kernels and fill the allocator


class Row(NamedTuple):
    """A line of the table: medians; `waits` a step of ours, None where the device can't tell."""

    name: str
    ours: float
    bare: float
    unit: str
    waits: float | None

    def line(self) -> str:
        """In Markdown."""
        waits = "" if self.waits is None else f"{self.waits:.2f}"
        figures = f"{self.ours:,.1f} | {self.bare:,.1f} | {self.unit} | {self.ours / self.bare:.2f}"
        return f"| {self.name} | {figures} | {waits} |"


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def surroundings() -> str:
    """The device and the versions."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    import timm

    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, torch {torch.__version__}, timm {timm.__version__}"


def settle() -> None:
    """Wait for all that the device was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_a_step(step: Callable[[], object], steps: int, rounds: int = 5) -> float:
    """Median over rounds of `steps` steps each, with the device settled before and after."""
    for _ in range(WARM_UP):
        step()
    found = []
    for _ in range(rounds):
        settle()
        started = time.perf_counter()
        for _ in range(steps):
            step()
        settle()
        found.append((time.perf_counter() - started) / steps)
    return statistics.median(found)


def waits_a_step(step: Callable[[], object], steps: int) -> float | None:
    """How often a step makes the host wait for the device; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    with _counted() as seen:
        for _ in range(steps):
            step()
    return len(seen) / steps


@contextmanager
def _counted() -> Iterator[list[warnings.WarningMessage]]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield seen
    finally:
        torch.cuda.set_sync_debug_mode("default")


def photograph() -> bytes:
    """A JPEG of 500 x 375 pixels, drawn at random."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((500, 375)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    """What `cwerm.data.images.decode` does with a plain JPEG; that one needs pydantic."""
    return Image.open(io.BytesIO(data)).convert("RGB")
