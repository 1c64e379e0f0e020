"""What a sweep's trials say together: points, means over seeds, differences to the baseline by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

CONFIDENCE = 0.95
_ABSENT = object()
# Sections of a job that do not make two trials different; a run's draws follow its seed.
_IGNORED = ("name", "seed", "storage", "s3", "resources")
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
    return key == "method" or key.startswith(_MATTERS[job["method"]])


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
    """All figures of the row, such as ``seconds_train``; None where it has none."""
    job: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A point less its baseline, seed by seed: mean and 95 % t-interval, None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


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
        given = [trial.values[column] for trial in self.trials if trial.status == "done"]
        known = [value for value in given if value is not None]
        return float(np.mean(known)) if known else None

    def seconds(self, stage: str) -> float | None:
        """Mean over the trials that are done of a stage's seconds, or of ``total``."""
        return self.average(f"seconds_{stage}")

    def relevant(self, key: str) -> bool:
        """Whether a key makes a difference here."""
        return matters(self.job, key)


@dataclass(frozen=True)
class SweepResults:
    """All points of a sweep, in the order of its trials."""

    name: str
    report: str | None
    metric: str
    mode: str
    keys: tuple[str, ...]
    """Dotted keys that vary, without ``seed``."""
    baseline: dict[str, Any]
    points: tuple[PointResults, ...]

    @property
    def trials(self) -> list[Trial]:
        """The trials of all points."""
        return [trial for point in self.points for trial in point.trials]

    def find(
        self, wanted: Mapping[str, Any], among: Sequence[PointResults] | None = None
    ) -> PointResults | None:
        """The point with these settings, as far as they matter to it; of several the most alike."""
        best, most = None, -1
        for point in self.points if among is None else among:
            same = {key: setting(point.job, key) == value for key, value in wanted.items()}
            fits = all(equal or not point.relevant(key) for key, equal in same.items())
            if fits and sum(same.values()) > most:
                best, most = point, sum(same.values())
        return best

    def baseline_of(self, point: PointResults) -> PointResults | None:
        """The baseline that differs from a point in the baseline's keys alone.

        Keys that do not matter to one of the two may differ: plain training, run once, is the baseline of
        every coreset ratio.
        """
        shared = {k: v for k, v in point.settings.items() if point.relevant(k)} | self.baseline
        return self.find(shared, [p for p in self.points if p.is_baseline])

    def difference(self, point: PointResults) -> Difference | None:
        """A point less its baseline; None for a baseline, and where no seed is common to the two."""
        baseline = None if point.is_baseline else self.baseline_of(point)
        return None if baseline is None else paired_difference(point.scores, baseline.scores)

    @property
    def best(self) -> PointResults | None:
        """The best point."""
        return best_point(self.points, self.mode)


def paired_difference(
    scores: Mapping[int, float], baseline: Mapping[int, float]
) -> Difference | None:
    """Mean difference over the common seeds with its 95 % t-interval.

    The interval is ``mean ± t(0.975, n - 1) s / sqrt(n)`` with the sample standard deviation s of the n
    differences; None without a common seed.
    """
    seeds = sorted(scores.keys() & baseline.keys())
    if not seeds:
        return None
    differences = np.array([scores[seed] - baseline[seed] for seed in seeds])
    mean, n = float(differences.mean()), len(seeds)
    if n == 1:
        return Difference(mean, None, None, n)
    quantile = stdtrit(n - 1, 0.5 + CONFIDENCE / 2)
    half = float(quantile * differences.std(ddof=1) / np.sqrt(n))
    return Difference(mean, mean - half, mean + half, n)


def best_point(points: Sequence[PointResults], mode: str) -> PointResults | None:
    """The complete point of best mean over its seeds, ``mode`` max or min; the first of equals.

    A point with a failed or stopped trial is left out: its mean over the other seeds would be chosen.
    """
    complete = {i: point.mean for i, point in enumerate(points) if point.complete}
    sign = 1 if mode == "max" else -1
    ranked = sorted((-sign * mean, i) for i, mean in complete.items() if mean is not None)
    return points[ranked[0][1]] if ranked else None


def read_sweep(description: Mapping[str, Any], results: pa.Table) -> SweepResults:
    """The sweep of a ``sweep.json`` and its ``results.parquet``; of equal trials, one that is done.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: they are not what a sweep has left.
    """
    metric, baseline = description["metric"], description["baseline"]
    keys = tuple(description["keys"])
    groups: dict[str, dict[int, Trial]] = {}
    numbers = [field.name for field in results.schema if pa.types.is_floating(field.type)]
    seeds_column = results.column("seed")
    if metric not in numbers or description["mode"] not in ("max", "min"):
        raise ValueError(f"no column of numbers {metric}, or no mode {description['mode']}")
    if not pa.types.is_integer(seeds_column.type) or seeds_column.null_count:
        raise ValueError("seeds are no numbers")
    for row in results.to_pylist():
        trial = _trial(row, metric, numbers)
        seeds = groups.setdefault(_identity(trial.job, keys), {})
        if trial.seed not in seeds or seeds[trial.seed].status != "done":  # a search may come again
            seeds[trial.seed] = trial
    points = []
    for seeds in groups.values():
        trials = tuple(seeds.values())
        job = trials[0].job
        is_baseline = bool(baseline) and all(setting(job, k) == v for k, v in baseline.items())
        settings = {key: setting(job, key) for key in keys}
        points.append(PointResults(settings, trials, is_baseline))
    return SweepResults(
        name=description["name"],
        report=description["report"],
        metric=metric,
        mode=description["mode"],
        keys=keys,
        baseline=dict(baseline),
        points=tuple(points),
    )


def _trial(row: Mapping[str, Any], metric: str, numbers: Sequence[str]) -> Trial:
    return Trial(
        name=row["trial"],
        seed=row["seed"],
        status=row["status"],
        error=row["error"],
        score=row[metric],
        values={name: row[name] for name in numbers},
        job=json.loads(row["job"]),
    )


def _identity(job: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Equal for jobs of one point: what they compute, but for the seeds."""
    rest = {key: value for key, value in job.items() if key not in _IGNORED}
    if "data.split_seed" not in keys and isinstance(rest.get("data"), dict):
        rest["data"] = {k: v for k, v in rest["data"].items() if k != "split_seed"}
    return json.dumps(rest, sort_keys=True)
