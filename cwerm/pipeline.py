"""CW-ERM from images to a weighted model: the paper's Algorithm 1, one stage a line."""

from __future__ import annotations

from collections.abc import Callable

from cwerm.job.tree import Job
from cwerm.runs.folder import RunFolder, RunResult
from cwerm.runs.naming import free_name
from cwerm.runs.preflight import check, check_images
from cwerm.runtime.board import watched_nodes
from cwerm.runtime.capacity import sized_once
from cwerm.stages.broadcast import broadcast
from cwerm.stages.extract import embed_test, embed_val, extract
from cwerm.stages.ingest import ingest
from cwerm.stages.judge_test import judge_test
from cwerm.stages.label import label
from cwerm.stages.plan import Plan, StageResult
from cwerm.stages.reweight import reweight
from cwerm.stages.select import select
from cwerm.stages.train import train
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.part_cache import PartCache
from cwerm.store.storage import open_storage
from cwerm.terminal import console

PIPELINE = (
    ingest,  # read the labelled images
    label,  # the labels in use
    extract,  # z = h(x)
    embed_val,  # the same of the validation images, where a head is trained
    embed_test,  # and of the test images, where a head is trained or their labels are judged
    select,  # S* = ModerateCoreset(S, z), and the meta set
    reweight,  # learn w and Theta on S*
    judge_test,  # what that says of the labels of test and trusted images
    broadcast,  # W_S(x) = W_S*(NN(x, S*)) for every x (Eq. 3)
    train,  # minimise the weighted loss (Eq. 2)
)


def plan(job: Job, *last: str) -> Plan:
    """The stages of a job up to one of them or several, by default the training, in the job's storage.

    Raises:
        UserError: a mistake in the job or its surroundings.
    """
    storage = open_storage(job.storage, job.s3)
    near = PartCache(job.train.cache_bytes) if storage.far else None
    return Plan(PIPELINE, job, ArtifactStore(storage, near), last or ("train",))


def run(job: Job, *, overwrite: bool = False) -> RunResult:
    """Run every stage that the job needs and that is not in the store yet.

    Where another run of this name has finished, this one gets a folder of its own, unless ``overwrite``.

    Raises:
        UserError: a mistake in the job, the data or the surroundings.
    """
    steps = plan(job, "train", *beside(job))
    check(steps)
    name, holds = (job.name, None) if overwrite else free_name(steps)
    if holds:
        console.note(
            f"runs/{job.name} holds {holds}: this run goes to runs/{name} (or --overwrite)"
        )
    steps.rename(name)
    folder = RunFolder(steps)
    results = {}
    with watched_nodes(), sized_once(name) as sizing, steps.in_a_row():
        for stage in steps.names:
            result = _told(stage, steps.execute(stage))
            if not result.artifact.is_empty:
                results[stage] = result
            if stage == "ingest":
                check_images(steps)
            if stage == "broadcast" and steps.job.believes:
                folder.show_suspects()
    return folder.finish(results, sizing.size)


def judge(job: Job, choose: Callable[[Job, Artifact], Job]) -> Plan:
    """Weigh every training image, and train nothing; ``choose`` completes the job once the images are read.

    Raises:
        UserError: as `run`.
    """
    steps = plan(job, "broadcast", *beside(job))
    check(steps)
    with watched_nodes(), sized_once(job.name), steps.in_a_row():
        for stage in steps.names:
            _told(stage, steps.execute(stage))
            if stage == "ingest":
                steps.settle(choose(steps.job, steps.made["ingest"]))
                check_images(steps)
    return steps


def run_one(name: str, job: Job) -> str:
    """Run the stage ``name`` of the job, whose earlier stages have run; the artifact's address.

    Raises:
        UserError: as `run`, or an earlier stage has not run yet.
    """
    steps = plan(job, name)
    check(steps)
    with watched_nodes(), sized_once():
        return steps.store.uri(_told(name, steps.execute(name)).artifact)


def beside(job: Job) -> tuple[str, ...]:
    """What is made for people to look at, and nothing that is trained depends on."""
    return ("judge_test",) if job.judges_test else ()


def _told(name: str, result: StageResult) -> StageResult:
    """Say what a stage gave; what was found of the labels is said each time."""
    info = result.artifact.info
    if result.artifact.is_empty:
        return result
    console.stage_line(name, _describe(result.artifact, result.reused), result.seconds)
    for line in [*([] if result.reused else info.get("understood", [])), *info.get("found", [])]:
        console.note(line)
    return result


def _describe(artifact: Artifact, reused: bool) -> str:
    rows = [
        f"{artifact.rows(table):,} {table.replace('_', ' ')}"
        for table in artifact.tables
        if not table.endswith(("_labels", "digests", "contents", "beliefs", "extra", "predictions"))
    ]
    for name in ("validation_accuracy", "test_accuracy"):
        if name in artifact.info:
            rows.append(f"{name.replace('_', ' ')} {artifact.info[name]:.4f}")
    return ", ".join(rows) + ("  [green]reused[/green]" if reused else "")
