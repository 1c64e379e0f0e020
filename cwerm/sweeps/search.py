"""How a sweep is searched: its settings in the words of Ray Tune."""

from __future__ import annotations

from typing import Any

from cwerm.config import Job
from cwerm.sweeps.file import Sweep
from cwerm.sweeps.space import domain


def param_space(settings: Sweep, configs: list[dict[str, Any]]) -> dict[str, Any]:
    """The points as they are, or the ranges that Optuna draws from."""
    from ray import tune

    if configs:
        return {"point": tune.grid_search(configs)}
    (space,) = settings.spaces
    return {key: domain(value) for key, value in space.items()}


def tune_config(settings: Sweep, job: Job) -> Any:
    """Search, scheduler and limits in the words of Ray Tune."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    search = None
    metric, mode = settings.metrics[0], settings.modes[0]
    if settings.search == "optuna":
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        several = len(settings.metrics) > 1
        search = OptunaSearch(
            metric=settings.metrics if several else metric,
            mode=settings.modes if several else mode,
            seed=job.seed,
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
        num_samples=1 if judged else settings.num_samples,
        max_concurrent_trials=settings.max_concurrent_trials,
        time_budget_s=settings.time_budget_seconds,
        # a process that has loaded torch takes the next trial; one that is stopped midway can't
        reuse_actors=scheduler is None,
    )


def progress(board: str, total: int) -> Any:
    """Moves the bar of all trials."""
    import ray
    from ray.tune import Callback

    class Progress(Callback):
        def __init__(self) -> None:
            self.ended = 0

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            del iteration, trials, trial, info
            self.ended += 1
            ray.get_actor(board).post.remote(self.ended, f"{self.ended} of {total}")

        on_trial_error = on_trial_complete

    return Progress()
