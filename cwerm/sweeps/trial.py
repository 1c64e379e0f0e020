"""One trial of a sweep, in a process of its own on the cluster: a point with one seed or several."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.store.storage import Storage, open_storage, parse_mapping
from cwerm.sweeps.file import EPOCH_METRICS, TEST_METRICS, Point
from cwerm.sweeps.space import trial_job
from cwerm.terminal import console

STATUSES = ("done", "failed", "stopped", "begun")
NUMBERS = (
    *(*EPOCH_METRICS, *TEST_METRICS, "epochs", "auroc", "effective_sample_size"),
    *("started", "ended"),
)


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
    chosen: bool = False
    """Whether points are chosen as the sweep goes, so that one that has begun must be recorded."""

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
        """The record; None where there is none, or a damaged one."""
        try:
            return _checked(parse_mapping(self.storage.read_bytes(f"{self.folder}/{name}.json")))
        except FileNotFoundError:
            return None
        except ValueError as error:
            console.note(f"{name}: its record is damaged ({error}), and counts as none")
            return None

    def names(self) -> list[str]:
        """The names of the jobs that have a record, sorted."""
        paths = [entry.path for entry in self.storage.walk(self.folder)]
        return sorted(path.rpartition("/")[2][:-5] for path in paths if path.endswith(".json"))

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Put the record in place of an earlier one."""
        text = json.dumps(record, indent=1).encode()
        self.storage.write_bytes(f"{self.folder}/{name}.json", text)

    def clear(self) -> None:
        """Remove all records."""
        for name in self.names():
            self.storage.delete(f"{self.folder}/{name}.json")


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """A record as the results take it, whoever wrote it.

    Raises:
        ValueError: it is none.
    """
    status, error = record.get("status"), record.get("error")
    if status not in STATUSES or not isinstance(error, str | None):
        raise ValueError("no status or error")
    if not all(isinstance(record.get(name), str) for name in ("trial", "job")):
        raise ValueError("no trial or job")
    if not isinstance(parse_mapping(record["job"].encode()).get("data"), dict):
        raise ValueError("its job is none")
    for name in [n for n in record if n in NUMBERS or n.startswith("seconds")]:
        value = record[name]
        # what a column of the results can hold
        if type(value) not in (int, float, type(None)) or not -(2**63) < (value or 0) < 2**63:
            raise ValueError(f"{name} is no number")
    if type(record.get("seed")) is not int or type(record.get("epochs", 0)) not in (
        int,
        type(None),
    ):
        raise ValueError("no seed or epochs")
    reused = record.get("reused") or []
    if not isinstance(reused, list) or not all(isinstance(stage, str) for stage in reused):
        raise ValueError("reused are no stages")
    if not all(isinstance(record.get(name), str | None) for name in ("folder", "hardware")):
        raise ValueError("no folder or hardware")
    if status == "done" and not isinstance(record.get("epochs"), int):
        raise ValueError("done without epochs")
    return record


def run_trial(config: dict[str, Any], trials: Trials) -> dict[str, Any]:
    """Run every seed of a point; gives the means of the metrics to Tune.

    A seed that is recorded as done, by an earlier try or attempt, counts as it is.

    Raises:
        UserError: what a run of the job raises; it is in the trial's record, too.
    """
    if os.path.isdir(trials.folder):
        os.chdir(trials.folder)
    point = config.get("point", config)
    records = [_run_seed(job, trials) for job in trials.jobs(point)]
    return {**means_of(records, trials), "epochs": min(record["epochs"] for record in records)}


def means_of(records: list[dict[str, Any]], trials: Trials) -> dict[str, float]:
    """What a point is judged by: each metric's mean over its seeds."""
    return {name: sum(record[name] for record in records) / len(records) for name in trials.metrics}


def _run_seed(job: Job, trials: Trials) -> dict[str, Any]:
    import ray

    from cwerm import pipeline
    from cwerm.runtime.training import ranks

    records = Records(job, trials.name)
    earlier = records.read(job.name)
    if earlier and is_done(earlier, trials):
        return earlier
    if trials.chosen:
        records.write(job.name, {"status": "begun", "error": None, **_origin(job)})

    board = ray.get_actor(trials.board)

    def tell(text: str) -> None:
        board.note.remote(f"{job.name}  {text}")

    started = time.time()
    try:
        with console.told_to(tell), ranks.reports_to(_epochs if trials.reports_epochs else None):
            result = pipeline.run(job)
        span = {"started": started, "ended": time.time()}
        record = span | _record(job, result.folder, result.summary)
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
        **{name: summary[name] for name in (*EPOCH_METRICS, *TEST_METRICS, "reused")},
        "auroc": weights.get("auroc"),
        "effective_sample_size": weights.get("effective_sample_size"),
        "folder": folder,
        "hardware": summary["hardware"],
    }


def is_done(record: dict[str, Any], trials: Trials) -> bool:
    """Whether a trial has ended well, and says what the sweep is judged by."""
    return record["status"] == "done" and all(record.get(m) is not None for m in trials.metrics)


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
