"""Processor seconds of a command with all the processes that it starts, read while they live."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

LOOK_SECONDS = 0.1
SMALL = 0.3  # processor seconds below which a process isn't counted as one


@dataclass(frozen=True)
class Spent:
    """What a command took.

    Attributes:
        cpu_seconds: user and system time of all processes; what each did after the last look at it,
            `LOOK_SECONDS` before its end at most, is missing.
        seconds: on the wall.
        by_name: processor seconds of each process, with the last title that it had.
    """

    cpu_seconds: float
    seconds: float
    by_name: list[tuple[str, float]]

    @property
    def processes(self) -> int:
        """How many processes took more than `SMALL` processor seconds."""
        return sum(seconds > SMALL for _, seconds in self.by_name)


def run_counted(command: Sequence[object]) -> Spent:
    """Run the command to its end; its output is dropped, and its failure ends this script."""
    spent: dict[tuple[int, float], tuple[str, float]] = {}
    started = time.monotonic()
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as running:
        root = psutil.Process(running.pid)
        while running.poll() is None:
            for process in [root, *root.children(recursive=True)]:
                try:
                    times = process.cpu_times()
                    title = _title(process.cmdline())
                    key = process.pid, process.create_time()
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
                title = title if title or key not in spent else spent[key][0]
                spent[key] = title, times.user + times.system
            time.sleep(LOOK_SECONDS)
    if running.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {running.returncode}")
    taken = sorted(spent.values(), key=lambda each: -each[1])
    total = sum(seconds for _, seconds in taken)
    return Spent(total, time.monotonic() - started, taken)


def _title(words: list[str]) -> str:
    """What Ray calls a process, or the program or script that it runs."""
    if not words:
        return ""
    if words[0].startswith("ray::"):
        return words[0].split()[0]
    script = next((word for word in words[1:] if word.endswith(".py")), "")
    module = words[words.index("-m") + 1] if "-m" in words else ""
    return (module or script or words[0]).rpartition("/")[2]
