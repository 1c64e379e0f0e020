"""Memory of a run whose images are streamed from a bucket: the same for more of them.

    python benchmarks/streaming_memory.py [--gigabytes 0.5 2] [--steps 200]

JPEGs of 224 x 224 pixels, made of the sample, enlarged and with noise, in a Parquet source; a real S3 server
on this machine holds the store. Each size is ingested, embedded and trained on by commands of their own. The
memory is the proportional share (PSS) of the command and all processes below it, twice a second; the server
is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from _report import surroundings
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from object_store import (  # type: ignore[import-not-found]
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    Server,
    _program,
)

SIDE, DISTINCT, ROWS = 224, 3000, 500


def make_source(folder: Path, gigabytes: float) -> int:
    """Parquet files of so much; the number of images."""
    sample = pq.read_table(Path(__file__).parents[1] / "cwerm/data/sample/train.parquet")
    cells, labels = sample.column("image").to_pylist(), sample.column("label").to_pylist()
    random = np.random.default_rng(0)
    distinct = [_enlarged(cells[i % len(cells)], random) for i in range(DISTINCT)]
    written = rows = 0
    while written < gigabytes * 1e9:
        chosen = random.integers(0, DISTINCT, ROWS)
        images = [distinct[i] for i in chosen]
        written += sum(map(len, images))
        rows += ROWS
        table = pa.table({"image": images, "label": [str(labels[i % len(cells)]) for i in chosen]})
        pq.write_table(table, folder / f"{rows:07d}.parquet")
    return rows


def _enlarged(cell: bytes | dict[str, bytes], random: np.random.Generator) -> bytes:
    data = cell["bytes"] if isinstance(cell, dict) else cell
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
    pixels = np.asarray(image).astype(int) + random.integers(-40, 41, (SIDE, SIDE, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def peak_of(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Gigabytes at most, and seconds."""
    started = time.monotonic()
    process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.5):
            total = 0
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error, OSError):
                    total += one.memory_full_info().pss
            most = max(most, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return most / 1e9, time.monotonic() - started


def main() -> None:
    """Print the peaks by size and stage, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.5, 2.0])
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    print(surroundings())
    server = Server(_program(), volumes=200)
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    found: list[dict[str, float]] = []
    try:
        for size in arguments.gigabytes:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "source")
                source.mkdir()
                images = make_source(source, size)
                job = Path(folder, "job.yaml")
                tree = {
                    "name": f"memory-{size:g}",
                    "storage": f"s3://{BUCKET}/{size:g}",
                    "s3": {"endpoint": server.address},
                    "data": {"source": str(source)},
                    "method": "erm",
                    "features": {"weights": "random", "image_size": 32, "dtype": "float16"},
                    "train": {
                        "model": "resnet20",
                        "image_size": 32,
                        "epochs": 5,
                        "max_steps": arguments.steps,
                        "batch_size": 64,
                        "memory_bytes": 0,
                        "cache_bytes": 0,
                    },
                    "resources": {"workers": 1},
                }
                job.write_text(yaml.safe_dump(tree))
                peaks = {"images": float(images)}
                for stage in ("ingest", "extract", "train"):
                    command = [sys.executable, "-m", "cwerm.cli", "stage", stage, str(job)]
                    command += ["method=cw-erm"] if stage == "extract" else []
                    peaks[stage], seconds = peak_of(command, environment)
                    told = f"{peaks[stage]:.2f} GB at most, {seconds:.0f} s"
                    print(f"{size:g} GB, {images} images, {stage}: {told}", flush=True)
                found.append(peaks)
    finally:
        server.remove()
    for stage in ("ingest", "extract", "train"):
        ratio = found[-1][stage] / found[0][stage]
        print(f"{stage}: {ratio:.2f} times as much (at most 1.1 asked for)")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
