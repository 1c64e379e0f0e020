"""One trial of a sweep, in a process of its own on the cluster: a point with one seed or several."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from cwerm.config import Job
from cwerm.errors import UserError
from cwerm.storage import Storage, open_storage
from cwerm.sweeps.file import Point
from cwerm.sweeps.space import trial_job


@dataclass(frozen=True)
class Trials:
    """What every trial of a sweep is made from; small and picklable."""

    name: str
    base: dict[str, Any]
    seeds: int
    metrics: tuple[str, ...]
    reports_epochs: bool
    folder: str
    """Where the driver was started: relative paths of the job lie there."""

    @property
    def board(self) -> str:
        """The name of the board: a handle would not outlive the driver, and Tune saves what it is given."""
        return f"cwerm-sweep-{self.name}"

    def jobs(self, point: Point) -> list[Job]:
        """The jobs of a point, one a seed, each with a name of its own.

        Raises:
            UserError: a key or value that no job has.
        """
        first = point.get("seed", self.base.get("seed", 0))
        named = []
        for seed in range(first, first + self.seeds):
            job = trial_job(self.base, {**point, "seed": seed})
            tree = job.model_dump(exclude={"name", "storage", "s3", "resources"})
            digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]
            named.append(job.model_copy(update={"name": f"{self.name}-{digest}"}))
        return named


class Records:
    """What trials have left in the sweep's folder, by the names of their jobs."""

    def __init__(self, job: Job, sweep: str) -> None:
        self.storage: Storage = open_storage(job.storage, job.s3)
        self.folder = f"sweeps/{sweep}/trials"

    def read(self, name: str) -> dict[str, Any] | None:
        """The record, None where there is none."""
        try:
            return json.loads(self.storage.read_bytes(f"{self.folder}/{name}.json"))
        except FileNotFoundError:
            return None

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Put the record in place of an earlier one."""
        text = json.dumps(record, indent=1).encode()
        self.storage.write_bytes(f"{self.folder}/{name}.json", text)


def run_trial(config: dict[str, Any], trials: Trials, resumed: bool) -> dict[str, Any]:
    """Run every seed of a point; gives the means of the metrics to Tune.

    A seed that an earlier attempt of the sweep finished counts as it is where ``resumed``.

    Raises:
        UserError: what a run of the job raises; it is in the trial's record, too.
    """
    if os.path.isdir(trials.folder):
        os.chdir(trials.folder)
    point = config.get("point", config)
    records = [_run_seed(job, trials, resumed) for job in trials.jobs(point)]
    means = {
        name: sum(record[name] for record in records) / len(records) for name in trials.metrics
    }
    return {**means, "epochs": min(record["epochs"] for record in records)}


def _run_seed(job: Job, trials: Trials, resumed: bool) -> dict[str, Any]:
    import ray

    from cwerm import console, pipeline
    from cwerm.stages import ranks

    records = Records(job, trials.name)
    earlier = records.read(job.name) if resumed else None
    if earlier and earlier["status"] == "done":
        return earlier

    board = ray.get_actor(trials.board)

    def tell(text: str) -> None:
        board.note.remote(f"{job.name}  {text}")

    try:
        with console.told_to(tell), ranks.reports_to(_epochs if trials.reports_epochs else None):
            result = pipeline.run(job)
        record = _record(job, result.folder, result.summary)
        _check_metrics(record, trials.metrics)
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        records.write(job.name, {"status": "failed", "error": line, **_origin(job)})
        tell(f"failed: {line}")
        raise
    records.write(job.name, record)
    return record


def _record(job: Job, folder: str, summary: dict[str, Any]) -> dict[str, Any]:
    seconds, weights = summary["seconds"], summary.get("weights", {})
    return {
        "status": "done",
        "error": None,
        **_origin(job),
        "epochs": job.train.epochs,
        "seconds_total": sum(seconds.values()),
        **{f"seconds_{stage}": value for stage, value in seconds.items()},
        **{name: summary[name] for name in ("test_accuracy", "test_accuracy_top5", "reused")},
        "train_accuracy": summary["train_accuracy"],
        "train_loss": summary["train_loss"],
        "auroc": weights.get("auroc"),
        "effective_sample_size": weights.get("effective_sample_size"),
        "folder": folder,
    }


def _origin(job: Job) -> dict[str, Any]:
    return {"trial": job.name, "seed": job.seed, "job": json.dumps(job.model_dump())}


def _check_metrics(record: dict[str, Any], metrics: tuple[str, ...]) -> None:
    missing = [name for name in metrics if record[name] is None]
    if missing:
        raise UserError(f"metric: this job has no {missing[0]}; judge the sweep by another metric")


def _epochs() -> Any:
    """Passes each epoch's metrics on from Ray Train to Ray Tune."""
    from ray.tune.integration.ray_train import TuneReportCallback

    class Epochs(TuneReportCallback):
        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            epoch = {k: v for k, v in metrics[0].items() if isinstance(v, int | float)}
            super().after_report(run_context, [{**epoch, "epochs": epoch["epoch"] + 1}], None)
            del checkpoint

    return Epochs()
