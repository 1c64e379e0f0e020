"""CW-ERM from images to a weighted model: the paper's Algorithm 1, one stage a line."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

from cwerm.job.tree import Job
from cwerm.runs.folder import RunFolder, RunResult, StageResult
from cwerm.runs.preflight import check, check_images
from cwerm.runtime.board import watched_nodes
from cwerm.runtime.capacity import sized_once
from cwerm.stages import broadcast, extract, ingest, reweight, select, train
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.claims import claimed
from cwerm.store.storage import open_storage
from cwerm.terminal import console

METHODS: dict[str, tuple[ModuleType, ...]] = {
    "erm": (
        ingest,  # read the labelled images
        train,  # minimise the plain loss (Eq. 1)
    ),
    "cw-erm": (
        ingest,  # read the labelled images
        extract,  # z = h(x)
        select,  # S* = ModerateCoreset(S, z), and the meta set
        reweight,  # learn w and Theta on S* (Meta-Weight-Net)
        broadcast,  # W_S(x) = W_S*(NN(x, S*)) for every x (Eq. 3)
        train,  # minimise the weighted loss (Eq. 2)
    ),
    "c-random-erm": (ingest, extract, select, train),  # S* at random, trained on alone
    "c-moderate-erm": (ingest, extract, select, train),  # S* = ModerateCoreset(S, z), likewise
}
# S* = S: reweighted on every worker, and each sample keeps its own weight
METHODS["w-erm"] = METHODS["cw-erm"]
STAGES = {stage.NAME: stage for stage in METHODS["cw-erm"]}


def run(job: Job) -> RunResult:
    """Run every stage of the job's method that is not in the store yet.

    Raises:
        UserError: a mistake in the job, the data or the surroundings.
    """
    store = ArtifactStore(open_storage(job.storage, job.s3))
    check(job, store)
    folder = RunFolder(job, store)
    results = {}
    with watched_nodes(), sized_once() as sizing:
        for stage in METHODS[job.method]:
            results[stage.NAME] = run_stage(stage, job, store)
            if stage is ingest:
                check_images(job, store, results[stage.NAME].artifact)
    return folder.finish(results, sizing.size)


def run_one(name: str, job: Job) -> str:
    """Run the stage ``name`` of the job, whose earlier stages have run; the artifact's address.

    Raises:
        UserError: as `run`, or an earlier stage has not run yet.
    """
    store = ArtifactStore(open_storage(job.storage, job.s3))
    check(job, store)
    with watched_nodes(), sized_once(told=False):
        return store.uri(run_stage(STAGES[name], job, store).artifact)


def run_stage(stage: ModuleType, job: Job, store: ArtifactStore) -> StageResult:
    """One stage: its artifact from the store, or else computed and committed."""
    started = time.perf_counter()
    key = stage.key(job, store)
    artifact: Artifact | None = store.find(stage.NAME, key)
    reused = artifact is not None
    if artifact is None:
        with claimed(store, stage.NAME, key) as made_by_another:
            reused = made_by_another is not None
            artifact = made_by_another or stage.run(job, store)
    seconds = time.perf_counter() - started
    console.stage_line(stage.NAME, _describe(artifact, reused), seconds)
    understood = [] if reused else artifact.info.get("understood", [])
    # what was found of the labels is told each time
    for line in [*understood, *artifact.info.get("found", [])]:
        console.note(line)
    return StageResult(artifact, seconds, reused)


def _describe(artifact: Artifact, reused: bool) -> str:
    rows: list[Any] = [
        f"{artifact.rows(table):,} {table.replace('_', ' ')}"
        for table in artifact.tables
        if table != "labels"
    ]
    if "test_accuracy" in artifact.info:
        rows.append(f"test accuracy {artifact.info['test_accuracy']:.4f}")
    return ", ".join(rows) + ("  [green]reused[/green]" if reused else "")
