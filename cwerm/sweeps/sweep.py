"""A sweep: Ray Tune over the points of a space, every trial a run of a job on one shared storage.

Trials hold next to no CPU themselves: their stages take what they need from the cluster as those of
any run, and `claims` sees to it that what several trials need is made once.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.store.storage import local_path, open_storage, parse_mapping
from cwerm.sweeps.earlier import Earlier, read_earlier
from cwerm.sweeps.file import Sweep, flat
from cwerm.sweeps.results import write_results
from cwerm.sweeps.search import TOGETHER, param_space, progress, tune_config
from cwerm.sweeps.space import bounds, check_baseline, load_both, points, with_validation
from cwerm.sweeps.trial import Records, Trials, run_trial
from cwerm.terminal import console

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
    prepared = prepare(sweep_file, job_file, overrides, options)
    settings, job = prepared.settings, prepared.job
    trials, configs = prepared.trials, prepared.configs
    folder = _Folder(job, settings, trials.base, resume)
    records = Records(job, settings.name)
    if not resume:
        records.clear()  # of an earlier sweep of that name
    earlier = read_earlier(settings, trials, records, configs) if resume else Earlier()
    results = _tune(settings, job, trials, earlier, configs)
    left = (folder.storage, folder.path, settings, trials, configs, earlier, results)
    if not write_results(*left):
        raise UserError(f"{settings.name}: no trial ended well; the first one says why, above")
    from cwerm.reports.report import report

    uri = folder.storage.uri(folder.path)
    report(uri)
    return uri


@dataclass(frozen=True)
class Prepared:
    """A sweep before its first trial."""

    settings: Sweep
    job: Job
    """That every trial starts from."""
    trials: Trials
    configs: list[dict[str, Any]]
    """The points with their seeds; none where they are chosen as the sweep goes."""
    jobs: list[Job]
    """Of all trials; where they are chosen as it goes, of the seeds of the point that the job itself is."""

    @property
    def total(self) -> int:
        """Trials."""
        return len(self.configs) or self.settings.num_samples


def prepare(
    sweep_file: str | Path,
    job_file: str | Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> Prepared:
    """Read the files and make the job of every trial, so that wrong values show before anything runs.

    Raises:
        UserError: a mistake in a file.
    """
    settings, job = load_both(sweep_file, job_file, overrides, options)
    job = with_validation(settings, job)
    base = {**job.model_dump(), "storage": _absolute(job.storage)}
    base["resources"]["address"] = None  # trials run inside the cluster
    trials = Trials(
        name=settings.name,
        base=base,
        seeds=settings.seeds if settings.search == "optuna" else 1,
        metrics=tuple(settings.metrics),
        reports_epochs=settings.scheduler != "none",
        chosen=settings.search == "optuna",
        folder=os.getcwd(),
    )
    configs = _configs(settings, job)
    for bound in bounds(settings):
        trials.jobs(bound)
    jobs = [made for config in configs or [{}] for made in trials.jobs(config)]
    if configs:
        check_baseline(settings, jobs)
    return Prepared(settings, job, trials, configs, jobs)


class _Folder:
    """``sweeps/<name>/``: what the sweep is, the records of its trials, and what came out."""

    def __init__(self, job: Job, settings: Sweep, base: dict[str, Any], resume: bool) -> None:
        self.storage = open_storage(job.storage, job.s3)
        self.storage.check_writable()
        self.path = f"sweeps/{settings.name}"
        given = {"sweep": settings.model_dump(), "base": {**base, "resources": None, "s3": None}}
        if resume:
            self._check_same(settings.name, job.storage, given)
            return
        description = {
            "name": settings.name,
            "report": settings.report,
            "metric": settings.metrics[0],
            "mode": settings.modes[0],
            "baseline": dict(flat(settings.baseline)),
            "keys": [key for key in settings.keys if key != "seed"],
            "given": given,
        }
        text = json.dumps(description, indent=1).encode()
        self.storage.write_bytes(f"{self.path}/sweep.json", text)

    def _check_same(self, name: str, place: str, given: dict[str, Any]) -> None:
        """Refuse to go on with a sweep that is not there, or is another one."""
        try:
            before = parse_mapping(self.storage.read_bytes(f"{self.path}/sweep.json"))
        except FileNotFoundError:
            raise UserError(
                f"--resume: there is no sweep '{name}' in '{place}'; leave it out"
            ) from None
        except ValueError:
            raise UserError(
                f"--resume: the file sweep.json of '{name}' in '{place}' is damaged; leave --resume "
                "out: what is in the storage is taken up all the same"
            ) from None
        # as JSON gives it back: a tuple is a list there
        if before.get("given") != json.loads(json.dumps(given)):
            raise UserError(
                f"--resume: the sweep '{name}' was started with other settings; use "
                "them, or leave --resume out: what is in the storage is taken up all the same"
            )


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
    settings: Sweep, job: Job, trials: Trials, earlier: Earlier, configs: list[dict[str, Any]]
) -> list[Any]:
    """Tune's results, an entry a trial, of what has not ended before."""
    total = len(configs) or settings.num_samples
    done = len(earlier.ended)
    console.stage_line("sweep", f"{total} trials of {settings.name}")
    if done:
        console.note(f"{done} of {total} trials ended in an earlier attempt")
    if done >= total:
        return []
    os.environ.update(QUIET)  # read as Tune is imported
    from ray import tune

    # failures are told in one line each, by the trials
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    from cwerm.runtime.board import progress_board, watched_nodes
    from cwerm.runtime.session import session
    from cwerm.runtime.worker_errors import user_errors

    # Tune asks the dashboard to clear up after a trial that it stops
    session.ensure_ray(job, dashboard=settings.scheduler != "none")
    todo = [config for config in configs if config not in earlier.ended]
    with (
        # Tune's own state is pickles. They stay on this machine and are gone with the sweep: what a
        # later attempt needs, our records say.
        tempfile.TemporaryDirectory(prefix="cwerm-tune-", ignore_cleanup_errors=True) as state,
        progress_board(total, "sweep", trials.board),
        watched_nodes(),
        session.interruptible(),
        user_errors(TOGETHER),
    ):
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, trials=trials), TRIAL_RESOURCES
        )
        watched = progress(trials, total, done)
        grid = tune.Tuner(
            trainable,
            param_space=param_space(settings, todo),
            tune_config=tune_config(settings, job, earlier, total - done),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=state,
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[watched],
                verbose=0,
            ),
        ).fit()
        return [*(result for result in grid if result.config), *watched.lost]
