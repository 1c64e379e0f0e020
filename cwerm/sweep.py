"""A sweep: Ray Tune over the points of a space, every trial a run of a job on one shared storage.

Trials hold next to no CPU themselves: their stages take what they need from the cluster as those of
any run, and `claims` sees to it that what several trials need is made once.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwerm import console
from cwerm.config import Job
from cwerm.errors import UserError
from cwerm.storage import filesystem, local_path, open_storage
from cwerm.sweeps.file import Sweep, flat
from cwerm.sweeps.results import write_results
from cwerm.sweeps.search import param_space, progress, tune_config
from cwerm.sweeps.space import load_both, points
from cwerm.sweeps.trial import Trials, run_trial

# No CPU: a stage that takes all of them could never begin. A bundle must hold something.
TRIAL_RESOURCES = {"CPU": 0, "memory": 2**28}
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def sweep(
    sweep_file: str | Path,
    job_file: str | Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    *,
    resume: bool = False,
) -> str:
    """Run a sweep of a job, and report on it; the URI of the sweep's folder.

    Args:
        sweep_file: the space and how to search it; see tune/.
        job_file: the job that every trial starts from.
        overrides: ``section.key=value`` for all trials.
        options: keys to text, as those of the command line.
        resume: go on with the interrupted sweep of that name instead of starting anew.

    Raises:
        UserError: a mistake in a file, nothing to resume, or not one trial that ended well.
    """
    settings, job = load_both(sweep_file, job_file, overrides, options)
    base = {**job.model_dump(), "storage": _absolute(job.storage)}
    base["resources"]["address"] = None  # trials run inside the cluster
    trials = Trials(
        name=settings.name,
        base=base,
        seeds=settings.seeds if settings.search == "optuna" else 1,
        metrics=tuple(settings.metrics),
        reports_epochs=settings.scheduler != "none",
        folder=os.getcwd(),
    )
    configs = _configs(settings, job)
    for config in configs or [{}]:
        trials.jobs(config)  # wrong values show before anything runs
    folder = _Folder(job, settings, base, resume)
    results = _tune(settings, job, trials, configs, folder, resume)
    if not write_results(folder.storage, folder.path, settings, trials, results):
        raise UserError(f"{settings.name}: no trial ended well; the first one says why, above")
    from cwerm.report import report

    uri = folder.storage.uri(folder.path)
    report(uri)
    return uri


class _Folder:
    """``sweeps/<name>/``: what the sweep is, Tune's own state of each attempt, and what came out."""

    def __init__(self, job: Job, settings: Sweep, base: dict[str, Any], resume: bool) -> None:
        self.storage = open_storage(job.storage, job.s3)
        self.storage.check_writable()
        self.path = f"sweeps/{settings.name}"
        self.system, self.root = filesystem(self.storage.uri(f"{self.path}/tune"), job.s3)
        given = {"sweep": settings.model_dump(), "base": {**base, "resources": None, "s3": None}}
        self.experiment = uuid.uuid4().hex[:12]
        try:
            before = json.loads(self.storage.read_bytes(f"{self.path}/sweep.json"))
        except FileNotFoundError:
            before = None
        if resume:
            if before is None:
                raise UserError(
                    f"--resume: there is no sweep '{settings.name}' in '{job.storage}'; leave it out"
                )
            if before["given"] != given:
                raise UserError(
                    f"--resume: the sweep '{settings.name}' was started with other settings; use "
                    "them, or leave --resume out: what is in the storage is taken up all the same"
                )
            self.experiment = before["experiment"]
            return
        description = {
            "name": settings.name,
            "report": settings.report,
            "metric": settings.metrics[0],
            "mode": settings.modes[0],
            "baseline": dict(flat(settings.baseline)),
            "keys": [key for key in settings.keys if key != "seed"],
            "experiment": self.experiment,
            "given": given,
        }
        text = json.dumps(description, indent=1).encode()
        self.storage.write_bytes(f"{self.path}/sweep.json", text)


def _absolute(storage: str) -> str:
    return storage if "://" in storage else str(local_path(storage))


def _configs(settings: Sweep, job: Job) -> list[dict[str, Any]]:
    """The points with their seeds, all known beforehand but where Optuna chooses them."""
    if settings.search == "optuna":
        return []
    return [
        {"seed": seed, **point}
        for point in points(settings, job.seed)
        for seed in range(job.seed, job.seed + settings.seeds)
    ]


def _tune(
    settings: Sweep,
    job: Job,
    trials: Trials,
    configs: list[dict[str, Any]],
    folder: _Folder,
    resume: bool,
) -> Any:
    """Tune's results, an entry a trial."""
    os.environ.update(QUIET)  # read as Tune is imported
    from ray import tune

    # failures are told in one line each, by the trials
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    from cwerm.stages import session
    from cwerm.stages.board import progress_board, watched_nodes

    # Tune asks the dashboard to clear up after a trial that it stops
    session.ensure_ray(job, dashboard=settings.scheduler != "none")
    total = len(configs) or settings.num_samples
    console.stage_line("sweep", f"{total} trials of {settings.name}")
    with (
        progress_board(total, "sweep", trials.board),
        watched_nodes(),
        session.interruptible(),
    ):
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, trials=trials, resumed=resume),
            TRIAL_RESOURCES,
        )
        if resume and _has_state(folder):
            tuner = tune.Tuner.restore(
                f"{folder.root}/{folder.experiment}",
                trainable,
                resume_unfinished=True,
                restart_errored=True,
                storage_filesystem=folder.system,
            )
            return tuner.fit()
        return tune.Tuner(
            trainable,
            param_space=param_space(settings, configs),
            tune_config=tune_config(settings, job),
            run_config=tune.RunConfig(
                name=folder.experiment,
                storage_path=folder.root,
                storage_filesystem=folder.system,
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[progress(trials.board, total)],
                verbose=0,
            ),
        ).fit()


def _has_state(folder: _Folder) -> bool:
    """Whether Tune had come so far as to save what it does."""
    from ray.tune import Tuner

    return Tuner.can_restore(f"{folder.root}/{folder.experiment}", storage_filesystem=folder.system)
