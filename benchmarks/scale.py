"""Memory and seconds of stages by the number of rows: `python benchmarks/scale.py --help`.

Labels and features are drawn part by part and put into a storage as ingest and extract would put them;
then the stages run on them, each in a fresh process with a fresh Ray. Of ingest, all runs but the images, and
what a scan would tell of each is drawn. Processor seconds are those
of the driver and all workers, with what these take to start and to import. Memory is
what a process holds beside the pages it shares, looked at ten times a second: the most of the driver,
and the most of any worker. For some classes the medians are compared with NumPy's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from _assignment import assign
from _report import surroundings

from cwerm.job.tree import parse_job
from cwerm.pipeline import plan
from cwerm.runtime.session import session
from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.store import schema
from cwerm.store.artifacts import File
from cwerm.store.writing import Writer

ROWS_A_PART = 50_000
CORESET = 10_000
COMPARED_CLASSES = 5
STEPS = ("ingest", "label", "select", "broadcast")


def main() -> None:
    """Run every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 10_000_000])
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--coreset", type=int, default=CORESET)
    parser.add_argument("--method", default="nearest", choices=["nearest", "vote"])
    parser.add_argument("--max-index-bytes", type=int, default=2**31)
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=["inputs", *STEPS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        _take_step(options)
        return
    print(surroundings())
    print("| rows | stage | seconds | CPU s | rows/CPU s | driver, MiB | worker, MiB | medians |")
    print(8 * "|---" + "|", flush=True)
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            steps = [step for step in STEPS if step in options.steps]
            after = [step for step in steps if step != "ingest"]  # which reads no artifact
            for step in [*steps[: len(steps) - len(after)], *(["inputs"] if after else []), *after]:
                given = [*sys.argv[1:], "--rows", str(rows), "--folder", folder, "--step", step]
                subprocess.run([sys.executable, __file__, *given], check=True)


def _take_step(options: argparse.Namespace) -> None:
    (rows,) = options.rows
    tree = {
        "storage": options.folder,
        "data": {"source": "sample"},  # gives keys alone: the artifacts are made here
        "features": {"weights": "random"},
        "coreset": {"ratio": options.coreset / rows, "meta": "hold_out"},
        "reweight": {"method": "uniform"},
        "broadcast": {"method": options.method, "max_index_bytes": options.max_index_bytes},
    }
    job = parse_job(tree)
    steps = plan(job.model_copy(update={"storage": options.folder}))
    if options.step == "inputs":
        _make_inputs(steps, rows, options.dimensions, options.classes)
        return
    if options.step == "broadcast":
        _make_weights(steps)
    session.ensure_ray(job)
    with _peaks() as peaks:
        started = time.perf_counter()
        if options.step == "ingest":
            alone = assign(steps, rows, options.classes)
        else:
            made = steps.execute(options.step).artifact
        seconds = time.perf_counter() - started
    medians = ""
    if options.step == "select":
        medians = f"{_compare_medians(steps, options.classes):.1e}"
    elif options.step == "ingest":
        medians = f"the driver alone: {alone:.1f} CPU s"
    else:
        assert made.rows("labels" if options.step == "label" else "weights") == rows
    driver, worker = (peaks[name] / 2**20 for name in ("driver", "worker"))
    work = sum(peaks["cpu"].values())
    figures = f"{seconds:.0f} | {work:.1f} | {rows / work:,.0f} | {driver:.0f} | {worker:.0f}"
    print(f"| {rows:,} | {options.step} | {figures} | {medians} |", flush=True)


def _make_inputs(steps: Plan, rows: int, dimensions: int, classes: int) -> None:
    """Artifacts of ingest (no images) and extract: float16 features around class centres."""
    draw = np.random.default_rng(0)
    centers = draw.normal(size=(classes, dimensions)).astype(np.float32)
    ingest, writer = _writer(steps, "ingest"), _writer(steps, "extract")
    images, given = [], []
    parts: list[File] = []
    for start in range(0, rows, ROWS_A_PART):
        mine = draw.integers(0, classes, min(ROWS_A_PART, rows - start), dtype=np.int32)
        table = common.table("given_labels", np.arange(start, start + len(mine)), mine)
        given.append(ingest.write_part("given_labels", len(parts), table))
        images.append(_no_images(ingest, len(parts), len(mine)))
        noise = draw.standard_normal((len(mine), dimensions), dtype=np.float32)
        features = (centers[mine] + noise).astype(np.float16)
        values: Any = pa.FixedShapeTensorArray.from_numpy_ndarray(features)
        fields = schema.table_schema("features", value_type=values.type)
        ids = np.arange(start, start + len(mine))
        part = pa.table([ids, values], schema=fields)
        parts.append(writer.write_part("features", len(parts), part))
    writer.commit({"features": parts})
    names = [f"class {number}" for number in range(classes)]
    ingest.commit({"images": images, "given_labels": given}, {"class_names": names})


def _no_images(writer: Writer, part: int, rows: int) -> File:
    """A part of images in name only: no stage here reads one, they count its rows."""
    file = writer.write_file(f"none-{part:05d}", b"")
    return replace(file, rows=rows)


def _writer(steps: Plan, stage: str) -> Writer:
    return Writer(steps.store, stage, steps[stage].key, {})


def _make_weights(steps: Plan) -> None:
    """The artifact of reweight: weights drawn by chance."""
    coreset = steps.store.read(steps.inputs("reweight")["select"], "coreset")
    ids = common.column(coreset, "id")
    weights = np.random.default_rng(1).random(len(ids), dtype=np.float32)
    writer = _writer(steps, "reweight")
    table = common.table("coreset_weights", ids, weights, np.zeros_like(weights))
    part = writer.write_part("coreset_weights", 0, table)
    writer.commit({"coreset_weights": [part]}, {"learner": {"method": "uniform"}})


def _compare_medians(steps: Plan, classes: int) -> float:
    """The largest difference of a coreset sample's distance to that from NumPy's median of its class."""
    store, names = steps.store, ("extract", "label", "select")
    features, in_use, selected = (steps.execute(name).artifact for name in names)
    all_labels = common.labels_of(store, in_use)
    coreset, meta = (store.read(selected, name) for name in ("coreset", "meta"))
    compared = np.random.default_rng(2).choice(classes, COMPARED_CLASSES, replace=False)
    members: dict[int, list[np.ndarray]] = {int(label): [] for label in compared}
    for part in range(len(features.tables["features"])):
        rows = store.read_part(features, "features", part)
        ids = common.column(rows, "id")
        labels = all_labels[ids]
        vectors = common.column(rows, "feature")
        candidates = ~np.isin(ids, common.column(meta, "id"))
        for label, found in members.items():
            found.append(vectors[candidates & (labels == label)])
    labels, distances = common.column(coreset, "label"), common.column(coreset, "distance")
    ids = common.column(coreset, "id")
    worst = 0.0
    for label, found in members.items():
        median = np.median(np.concatenate(found).astype(np.float32), axis=0)
        chosen = ids[labels == label]
        vectors = np.stack(common.take_rows(store, features, "features", "feature", chosen))
        expected = np.linalg.norm(vectors.astype(np.float64) - median, axis=1)
        worst = max(worst, float(np.abs(expected - distances[labels == label]).max()))
    return worst


@contextmanager
def _peaks() -> Iterator[dict[str, Any]]:
    """The most bytes, beside shared pages, that the driver and any worker hold meanwhile.

    And ``cpu``, the processor seconds of each, by process.
    """
    peaks: dict[str, Any] = {"driver": 0.0, "worker": 0.0, "cpu": {}}
    driver = psutil.Process()
    began = sum(driver.cpu_times()[:2])
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for process in [driver, *driver.children(recursive=True)]:
                with suppress(psutil.Error):
                    role = "driver" if process == driver else "worker"
                    if role == "worker" and not process.cmdline()[0].startswith("ray::"):
                        continue  # Ray's own
                    memory = process.memory_info()
                    peaks[role] = max(peaks[role], memory.rss - memory.shared)
                    used = sum(process.cpu_times()[:2])
                    peaks["cpu"][process.pid] = used - (began if role == "driver" else 0)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
