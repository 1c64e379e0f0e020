"""One point of a comparison: trials of equal jobs but for the seed, and which keys matter to a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.stages.broadcast import broadcast
from cwerm.stages.reweight import reweight
from cwerm.stages.select import select
from cwerm.stages.train import train

STAGES = {stage.name: stage for stage in (select, reweight, broadcast, train)}
_ABSENT = object()
# Sections of a job that do not make two trials different; a run's draws follow its seed.
IGNORED = ("name", "seed", "storage", "s3", "resources")
# Without effect where the training is on features.
_OF_IMAGES = ("train.image_size", "train.crop_padding", "train.flip")
_ON_CORESET = ("data.", "train.", "features.", "coreset.ratio", "coreset.scope", "coreset.meta")
# What changes the outcome of each method, as beginnings of keys.
_MATTERS = {
    "erm": ("data.", "train.", "coreset.meta"),
    "c-random-erm": _ON_CORESET,
    "c-moderate-erm": _ON_CORESET,
    "w-erm": (
        *("data.", "train.", "features.", "coreset.meta", "reweight.", "broadcast.balance"),
        "control",
    ),
    "cw-erm": (
        *("data.", "train.", "features.", "coreset.", "reweight.", "broadcast."),
        "control",
    ),
}


def setting(job: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value of a dotted key of a job, ``default`` where the job has no such key."""
    part: Any = job
    for word in key.split("."):
        if not isinstance(part, Mapping) or word not in part:
            return default
        part = part[word]
    return part


def matters(job: Mapping[str, Any], key: str) -> bool:
    """Whether the value of a dotted key makes a difference to what the job computes."""
    if setting(job, key, _ABSENT) is _ABSENT:
        return False
    if key == "data.noise_rate" and setting(job, "data.noise") == "none":
        return False
    if setting(job, "train.input") == "features":
        if key in _OF_IMAGES:
            return False
        if key.startswith("features."):
            return True
    if key.startswith("features.") and not _reads_features(job):
        return False
    return key == "method" or key.startswith(_MATTERS[job["method"]])


def _reads_features(job: Mapping[str, Any]) -> bool:
    """Whether what is trained hangs on the features, as the stages themselves say."""
    try:
        whole = parse_job({**job})
    except UserError:
        return True  # of another version: rather shown than hidden
    asked, todo = {"train"}, ["train"]
    while todo:
        stage = STAGES.get(todo.pop())
        new = {*stage.needs(whole)} - asked if stage else set()
        asked |= new
        todo += new
    return "extract" in asked


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: a row of ``results.parquet``."""

    name: str
    seed: int
    status: str
    error: str | None
    score: float | None
    """The sweep's metric."""
    values: dict[str, float | None]
    """All figures of the row, such as ``seconds_train``; none or None where it has none."""
    job: dict[str, Any]
    hardware: str | None = None
    """What it was trained on."""
    span: tuple[float, float] | None = None
    """When it started and ended, in seconds."""


@dataclass(frozen=True, eq=False)
class PointResults:
    """Trials of equal jobs but for the seed."""

    settings: dict[str, Any]
    """Value of each key that varies in the sweep, as given."""
    trials: tuple[Trial, ...]
    is_baseline: bool

    @property
    def job(self) -> dict[str, Any]:
        """The job of its first trial."""
        return self.trials[0].job

    @cached_property
    def scores(self) -> dict[int, float]:
        """The metric by seed, of the trials that are done and have it."""
        return {
            trial.seed: trial.score
            for trial in sorted(self.trials, key=lambda trial: trial.seed)
            if trial.status == "done" and trial.score is not None
        }

    @property
    def n(self) -> int:
        """Seeds with a score."""
        return len(self.scores)

    @property
    def complete(self) -> bool:
        """Whether all its trials are done and have a score."""
        return self.n == len(self.trials)

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the seeds."""
        return float(np.mean([*self.scores.values()])) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the metric over the seeds, None for fewer than two."""
        return float(np.std([*self.scores.values()], ddof=1)) if self.n > 1 else None

    def average(self, column: str) -> float | None:
        """Mean of a column over the trials that are done and have a value there."""
        given = [trial.values.get(column) for trial in self.trials if trial.status == "done"]
        known = [value for value in given if value is not None]
        return float(np.mean(known)) if known else None

    def seconds(self, stage: str) -> float | None:
        """Mean over the trials that are done of a stage's seconds, or of ``total``."""
        return self.average(f"seconds_{stage}")

    def relevant(self, key: str) -> bool:
        """Whether a key makes a difference here."""
        return matters(self.job, key)
