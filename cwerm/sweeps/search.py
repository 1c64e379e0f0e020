"""How a sweep is searched: its settings in the words of Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cwerm.job.tree import Job, parse_job
from cwerm.sweeps.earlier import Earlier
from cwerm.sweeps.file import Sweep
from cwerm.sweeps.results import record_stopped
from cwerm.sweeps.space import domain
from cwerm.sweeps.trial import Records, Trials
from cwerm.terminal import console

# the key to lower where trials leave each other no memory
TOGETHER = "max_concurrent_trials"


def param_space(settings: Sweep, configs: list[dict[str, Any]]) -> dict[str, Any]:
    """The points as they are, or the ranges that Optuna draws from."""
    from ray import tune

    if configs:
        return {"point": tune.grid_search(configs)}
    (space,) = settings.spaces
    return {key: domain(value) for key, value in space.items()}


def tune_config(settings: Sweep, job: Job, earlier: Earlier, left: int) -> Any:
    """Search, scheduler and limits in the words of Ray Tune, for the trials that are left."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    search = None
    metric, mode = settings.metrics[0], settings.modes[0]
    if settings.search == "optuna":
        from ray.tune.search.optuna import OptunaSearch

        storage, sampler = _study(settings, job, earlier)
        several = len(settings.metrics) > 1
        search = OptunaSearch(
            metric=settings.metrics if several else metric,
            mode=settings.modes if several else mode,
            storage=storage,
            study_name=settings.name,
            sampler=sampler,
        )
    scheduler = None
    if settings.scheduler == "asha":
        scheduler = ASHAScheduler(
            time_attr="epochs",
            max_t=job.train.epochs + 1,  # what reaches the last epoch ends by itself
            grace_period=min(settings.grace_epochs, job.train.epochs),
            reduction_factor=settings.reduction_factor,
        )
    elif settings.scheduler == "median":
        scheduler = MedianStoppingRule(time_attr="epochs", grace_period=settings.grace_epochs)
    judged = search is None
    return tune.TuneConfig(
        metric=metric if judged else None,
        mode=mode if judged else None,
        search_alg=search,
        scheduler=scheduler,
        num_samples=1 if judged else left,
        max_concurrent_trials=settings.max_concurrent_trials,
        time_budget_s=settings.time_budget_seconds,
        # a process that has loaded torch takes the next trial; one that is stopped midway can't
        reuse_actors=scheduler is None,
    )


def _study(settings: Sweep, job: Job, earlier: Earlier) -> tuple[Any, Any]:
    """Optuna's memory and sampler: it knows the points that ended, and begins with those that had not."""
    import numpy as np
    import optuna
    from optuna.trial import create_trial
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    names = {"min": "minimize", "max": "maximize"}
    study = optuna.create_study(
        storage=storage,
        study_name=settings.name,
        directions=[names[mode] for mode in settings.modes],
    )
    ranges = OptunaSearch.convert_search_space(param_space(settings, []))
    for point, values in earlier.judged:
        chosen = {key: point[key] for key in ranges}
        study.add_trial(create_trial(params=chosen, distributions=ranges, values=values))
    for point in earlier.begun:
        study.enqueue_trial({key: point[key] for key in ranges})
    # a sampler that starts anew would draw the same points again
    seed = job.seed
    if earlier.judged:
        state = np.random.SeedSequence([job.seed, len(earlier.judged)])
        seed = int(state.generate_state(1)[0])
    return storage, optuna.samplers.TPESampler(seed=seed)


class Lost(NamedTuple):
    """A trial whose process ended before it reported anything: Ray's own result does not say which."""

    config: dict[str, Any]
    error: str
    metrics: dict[str, Any]


def progress(study: Trials, total: int, done: int) -> Any:
    """Moves the bar of all trials, records those that are stopped and tells of those that were killed."""
    import ray
    from ray.tune import Callback

    class Progress(Callback):
        def __init__(self) -> None:
            self.ended = done
            self.lost: list[Lost] = []

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            del iteration, trials, info
            record_stopped(study, trial.config, trial.last_result)
            self._count()

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            del iteration, trials, info
            told = Path(trial.error_file).read_text().rpartition("Failure #")[2]
            reason = (told.splitlines()[1:2] or ["its process ended"])[0]  # below its date
            _tell_death(study, trial.config, reason)
            if not (trial.last_result or {}).get("config"):
                self.lost.append(Lost(trial.config, reason, {}))
            self._count()

        def _count(self) -> None:
            self.ended += 1
            ray.get_actor(study.board).post.remote(self.ended, f"{self.ended} of {total}")

    return Progress()


def _tell_death(study: Trials, config: dict[str, Any], reason: str) -> None:
    """Say why a trial has ended, where its process could not do it."""
    records = Records(parse_job(study.base), study.name)
    for job in study.jobs(config.get("point", config)):
        record = records.read(job.name)
        if record is None or record["status"] == "begun":
            console.note(f"{job.name}  failed: {reason}")
            return
