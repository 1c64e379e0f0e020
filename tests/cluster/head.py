"""A Ray head with its job server in processes of its own, on free ports of this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

TOKEN = secrets.token_hex(32)
START_SECONDS = 240


@dataclass(frozen=True)
class Head:
    """Where the head is."""

    address: str
    """Of the cluster, for ``ray.init``."""
    dashboard: str

    def jobs(self, path: str = "", method: str = "GET") -> Any:
        """Ask the job server itself."""
        request = Request(
            f"{self.dashboard}/api/jobs/{path}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            method=method,
        )
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def ray_head(cpus: int) -> Iterator[Head]:
    """Start a head that wants `TOKEN`, and end all its processes."""
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
        "node-manager-port",
        "object-manager-port",
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    head = Head(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}")
    folder = Path(tempfile.mkdtemp(prefix="head"))  # the paths of sockets must be short
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        binaries / "ray",
        *("start", "--head", "--block", "--node-ip-address=127.0.0.1"),
        *("--dashboard-host=127.0.0.1", f"--num-cpus={cpus}", f"--temp-dir={folder}"),
        *("--object-store-memory=200000000", "--disable-usage-stats"),
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait(head, process, log)
        yield head
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        assert not psutil.wait_procs(family, timeout=30)[1]
        shutil.rmtree(folder)
        log.unlink()


def _wait(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if "Ray runtime started" in log.read_text():
            head.jobs()
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text())
