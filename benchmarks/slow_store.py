"""Requests of a run to its bucket, by stage and kind; and its time behind a store that is slow and fails.

    python benchmarks/slow_store.py [--images 1000] [--fast-only] [--paths]

A real S3 server on this machine, behind a proxy that counts. Each run is `cwerm run` of the quickstart's
job in an empty prefix, then the same again. The slow store answers after 200 ms, breaks 1 % of the
connections and says 503 to 20 % of the requests.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from _report import surroundings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from object_store import (  # type: ignore[import-not-found]
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    Server,
    _program,
)
from s3_servers import Asked, Said, relay  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]
LATENCY, RESETS, BUSY = 0.2, 0.01, 0.2


class Faults:
    """What the proxy does before it passes a request on, the same share of each kind."""

    def __init__(self, slow: bool) -> None:
        self.slow, self.lock = slow, threading.Lock()
        self.random = random.Random(0)
        self.failed = 0

    def __call__(self, _: Asked) -> Said | None:
        """Nothing, or an answer of its own; after a while."""
        if not self.slow:
            return None
        time.sleep(LATENCY)
        with self.lock:
            drawn = self.random.random()
            self.failed += drawn < RESETS + BUSY
        if drawn < RESETS:
            raise ConnectionResetError
        return (
            Said(503, "SlowDown", "Please reduce your request rate.")
            if drawn < RESETS + BUSY
            else None
        )


def place_of(asked: Asked) -> tuple[str, str, str]:
    """The stage that a request belongs to, its kind, and the object or prefix."""
    split = urlsplit(asked.path)
    query = parse_qs(split.query)
    key = unquote(split.path.removeprefix(f"/{BUCKET}").strip("/")).partition("/")[2]
    kind = asked.method
    if "list-type" in query:
        kind, key = "LIST", query.get("prefix", [""])[0].partition("/")[2]
    words = key.split("/")
    stage = words[1] if words[0] == "artifacts" and len(words) > 1 else words[0]
    if words[0] == "runs" and len(words) > 2:
        stage = f"runs/{words[2]}" if words[2] in ("checkpoints", "events") else "runs"
    return stage or "(root)", kind, key


def run_once(address: str, storage: str, images: int, folder: str) -> tuple[float, str]:
    """Seconds of `cwerm run`, and what it said."""
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": folder,
    }
    command = [sys.executable, "-m", "cwerm.cli", "run", str(ROOT / "jobs/quickstart.yaml")]
    command += [f"data.limit={images}", "--storage", storage]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - started, done.stdout


def print_counts(asked: list[Asked], paths: bool) -> None:
    """One line a stage, one column a kind."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    each: Counter[tuple[str, str]] = Counter()
    for one in asked:
        stage, kind, key = place_of(one)
        table[stage][kind] += 1
        each[kind, key] += 1
    kinds = ("GET", "HEAD", "LIST", "PUT", "DELETE", "POST")
    print("| | " + " | ".join([*kinds, "all"]) + " |\n|" + "---|" * (len(kinds) + 2))
    table["in all"] = sum(table.values(), Counter())
    for stage, counts in sorted(table.items(), key=lambda item: (item[0] == "in all", item[0])):
        cells = [counts[kind] for kind in kinds] + [counts.total()]
        print(f"| {stage} | " + " | ".join(map(str, cells)) + " |")
    if paths:
        for (kind, key), number in sorted(each.items(), key=lambda item: item[0][1]):
            print(f"{number:5} {kind:6} {key}")


def main() -> None:
    """Print requests and seconds of a fast store, and how many times as long a slow one takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--fast-only", action="store_true")
    parser.add_argument("--paths", action="store_true", help="requests of each object, too")
    parser.add_argument("--said", action="store_true", help="what the runs say, too")
    arguments = parser.parse_args()
    print(surroundings())
    server: Any = Server(_program(), volumes=200)
    try:
        for number in range(arguments.rounds):
            seconds: dict[tuple[bool, str], float] = {}
            for slow in (False,) if arguments.fast_only else (False, True):
                for name in ("a run", "the same again"):
                    faults = Faults(slow)
                    with (
                        tempfile.TemporaryDirectory() as folder,
                        relay(server.address, faults) as proxy,
                    ):
                        storage = f"s3://{BUCKET}/{'slow' if slow else 'fast'}{number}"
                        took, said = run_once(proxy.address, storage, arguments.images, folder)
                        seconds[slow, name] = took
                        print(
                            f"\n{'slow' if slow else 'fast'} store, {name}: {took:.1f} s, "
                            f"{len(proxy.asked)} requests, {faults.failed} of them failed",
                            flush=True,
                        )
                        if arguments.said:
                            print(said)
                        print_counts(proxy.asked, arguments.paths)
            for name in ("a run", "the same again") if not arguments.fast_only else ():
                ratio = seconds[True, name] / seconds[False, name]
                print(f"\n{name}: {ratio:.2f} times as long behind the slow store")
    finally:
        server.remove()


if __name__ == "__main__":
    main()
