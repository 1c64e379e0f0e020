"""Get GPUs from the autoscaler, and keep them for as long as they are needed.

``python cluster/gpus.py 4 COMMAND ...`` asks for four, waits until they are there, runs the command and
lets them go. Without a command they are kept until ``python cluster/gpus.py 0``.

cwerm sizes a run by the GPUs that it finds, so they must be there before it starts; and idle ones must
stay while it computes on CPUs.
"""

# ruff: noqa: T201  # a program that tells how far it is
from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

import ray
from ray.autoscaler.sdk import request_resources


def main() -> int:
    """The exit code: the command's, or 1 where the GPUs did not come in time."""
    arguments = _parser().parse_args()
    ray.init(address=arguments.address, logging_level="ERROR", log_to_driver=False)
    keep = False
    try:
        request_resources(bundles=[{"GPU": 1}] * arguments.count)
        if not _wait(arguments.count, arguments.timeout):
            return 1
        if not arguments.command:
            keep = True
            return 0
        return _run(arguments.command)
    finally:
        if not keep:
            request_resources(bundles=[])


def _run(command: list[str]) -> int:
    """Run the command; it has the signals sent to this process, which waits for it."""
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both
    return process.wait()


def _wait(count: int, seconds: float) -> bool:
    """True once the cluster has ``count`` GPUs."""
    end, told = time.monotonic() + seconds, -1
    while (found := int(ray.cluster_resources().get("GPU", 0))) < count:
        if found != told:
            print(f"{found} of {count} GPUs are there", flush=True)
            told = found
        if time.monotonic() > end:
            print(
                f"gpus.py: {found} of {count} GPUs after {seconds:.0f} s; `ray status` says what the "
                "autoscaler waits for: quota, capacity or max_workers",
                file=sys.stderr,
            )
            return False
        time.sleep(1)
    print(f"{found} of {count} GPUs are there" if count else "all GPUs may go", flush=True)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Get GPUs, run a command, let them go.")
    parser.add_argument("--address", default="auto", help="Ray cluster; default: this machine's")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds to wait")
    parser.add_argument("count", type=int, help="GPUs; 0 lets all go")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run with them, then let them go")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
