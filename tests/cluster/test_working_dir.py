"""A folder of images shipped with the job: every host unpacks it, with times of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli.commands import start
from object_store import BUCKET

from cluster.bucket_cluster import Cluster, three_hosts
from cluster.cluster_files_checks import ROOT
from cluster.hosts import obstacle
from cwerm.runs.folder import load_weights
from cwerm.runs.summary import load_summary

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1900),  # of three runs
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]

CHANGES = (
    "data.source=images",
    "data.rows_per_part=40",
    "features.image_size=32",
    "coreset.ratio=0.2",
    "coreset.meta=hold_out",
    "coreset.meta_per_class=2",
    "reweight.epochs=3",
    "broadcast.method=function",
    "train.model=resnet20",
    "train.epochs=1",
)
STAGES = ["broadcast", "extract", "ingest", "reweight", "select", "train"]
RUN_SECONDS = 600


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with three_hosts() as started:
        yield started


def write_images(folder: Path, small_data: Path) -> None:
    """The small data as one folder a class."""
    rows = pq.read_table(small_data / "train.parquet").to_pylist()
    for number, row in enumerate(rows):
        place = folder / f"class {row['label']}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.png").write_bytes(row["image"]["bytes"])


def unpacked(cluster: Cluster) -> list[list[int]]:
    """By host, the times of the images there."""
    pattern = "ray/session_*/runtime_resources/working_dir_files/*/images/*/*.png"
    return [
        [path.stat().st_mtime_ns for path in sorted(host.folder.glob(pattern))]
        for host in (cluster.head, *cluster.workers)
    ]


def submit(cluster: Cluster, storage: str) -> dict[str, Any]:
    options = ("name=shipped", *CHANGES, "--working-dir", ".")
    with cluster.submit(storage, *options) as running:
        out, _ = running.communicate(timeout=RUN_SECONDS)
    assert running.returncode == 0, out
    return load_summary(f"{storage}/runs/shipped")


def test_a_shipped_folder_gives_what_one_machine_gives(
    cluster: Cluster, small_data: Path, tmp_path: Path
) -> None:
    storage = f"s3://{BUCKET}/shipped"
    write_images(cluster.laptop.home / "images", small_data)
    assert submit(cluster, storage)["reused"] == []
    times = unpacked(cluster)
    assert [len(of_host) for of_host in times] == [400] * 3
    assert len({*map(tuple, times)}) == 3, "each host has its own"

    time.sleep(1)
    for path in (cluster.laptop.home / "images").rglob("*.png"):
        path.touch()
    assert sorted(submit(cluster, storage)["reused"]) == STAGES

    copied = tmp_path / "another name"
    copied.mkdir()
    shutil.copytree(
        cluster.laptop.home / "images", copied / "images", copy_function=shutil.copyfile
    )
    store = tmp_path / "store"
    job = ROOT / "jobs/paper/sample.yaml"
    with start("run", job, "name=local", *CHANGES, "--storage", store, cwd=copied) as running:
        out, err = running.communicate(timeout=RUN_SECONDS)
    assert (running.returncode, err) == (0, ""), (out, err)
    mine, other = (
        load_weights(f"{folder}").sort_by("id")
        for folder in (f"{storage}/runs/shipped", store / "runs/local")
    )
    for name in other.column_names:
        assert mine.column(name).equals(other.column(name)), name
