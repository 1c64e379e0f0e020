"""Who has made a claim, and whether they live: seen at once on this machine, else by their silence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil

from cwerm.store.storage import parse_mapping

POLL_SECONDS = 1.0
SILENT_SECONDS = 30.0  # without a beat, its owner counts as dead


def parse(data: bytes) -> dict[str, Any]:
    """A claim; one that is damaged is empty, as it has no owner who lives."""
    kinds: dict[str, Any] = {
        "token": str, "beat": int, "host": str, "process": int, "started": int | float,
    }  # fmt: skip
    try:
        claim = parse_mapping(data)
    except ValueError:
        return {}
    whole = all(isinstance(claim.get(name), kind) for name, kind in kinds.items())
    whole = (
        whole and isinstance(claim.get("machine", 0), str | None) and 0 < claim["process"] < 2**31
    )
    return claim if whole else {}


class Watch:
    """Whether the owner of a claim lives, as far as one can see from here."""

    def __init__(self) -> None:
        self.token = ""
        self.beat = 0
        self.silent = 0.0
        self.looked = time.monotonic()

    def is_new(self, claim: dict[str, Any]) -> bool:
        """Whether this owner is seen for the first time."""
        new = self.token != claim["token"]
        self.token = claim["token"]
        return new

    def is_over(self, claim: dict[str, Any]) -> bool:
        """Whether its owner has died: seen at once on this host, else by its silence."""
        now = time.monotonic()
        passed, self.looked = now - self.looked, now
        if not claim or _is_dead(claim):
            return True
        if (claim["token"], claim["beat"]) != (self.token, self.beat):
            self.beat, self.silent = claim["beat"], 0.0
        else:
            # a look that took long, in an outage of the storage, says little of the owner
            self.silent += min(passed, 2 * POLL_SECONDS)
        return self.silent > SILENT_SECONDS


def this_process() -> dict[str, Any]:
    """This process, as others on the same host can find it."""
    process = psutil.Process()
    return {"machine": _machine(), "process": process.pid, "started": process.create_time()}


def _machine() -> str | None:
    """What tells one table of processes from every other one; None where there is no such thing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _is_dead(claim: dict[str, Any]) -> bool:
    if claim["machine"] is None or claim["machine"] != _machine():
        return False
    try:
        # its time of birth is counted from that of the boot, which a clock that is set moves a little
        born = psutil.Process(claim["process"]).create_time()
        return abs(born - claim["started"]) > 2
    except psutil.NoSuchProcess:
        return True


def told(claim: dict[str, Any]) -> str:
    """The owner in words."""
    return f"process {claim['process']} on {claim['host']}" if claim else "a damaged claim"
