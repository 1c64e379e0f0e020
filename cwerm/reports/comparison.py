"""What trials say together: means over seeds, differences to the baseline by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import stdtrit

from cwerm.reports.points import IGNORED, PointResults, Trial, setting

CONFIDENCE = 0.95

SPAN = ("started", "ended")


@dataclass(frozen=True)
class Difference:
    """A point less its baseline, seed by seed: mean and 95 % t-interval, None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


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

    @classmethod
    def of(
        cls,
        name: str,
        metric: str,
        keys: Sequence[str],
        baseline: Mapping[str, Any],
        groups: Mapping[str, Mapping[int, Trial]],
        *,
        report: str | None = None,
        mode: str = "max",
    ) -> SweepResults:
        """Those of trials that `group` has put together."""
        points = []
        for seeds in groups.values():
            trials = tuple(seeds.values())
            job = trials[0].job
            is_baseline = bool(baseline) and all(setting(job, k) == v for k, v in baseline.items())
            settings = {key: setting(job, key) for key in keys}
            points.append(PointResults(settings, trials, is_baseline))
        return cls(name, report, metric, mode, tuple(keys), dict(baseline), tuple(points))

    @property
    def trials(self) -> list[Trial]:
        """The trials of all points."""
        return [trial for point in self.points for trial in point.trials]

    def baseline_of(self, point: PointResults) -> PointResults | None:
        """The baseline that differs from a point in the baseline's keys alone.

        Keys that do not matter to one of the two may differ: plain training, run once, is the baseline of
        every coreset ratio. None where no baseline fits, or several differ in what matters to them.
        """
        wanted = {k: v for k, v in point.settings.items() if point.relevant(k)} | self.baseline
        fitting: dict[int, list[PointResults]] = {}
        for other in (other for other in self.points if other.is_baseline):
            same = {key: setting(other.job, key) == value for key, value in wanted.items()}
            if all(equal or not other.relevant(key) for key, equal in same.items()):
                fitting.setdefault(sum(same.values()), []).append(other)
        best = fitting[max(fitting)] if fitting else []
        matter = {str({k: v for k, v in o.settings.items() if o.relevant(k)}) for o in best}
        return best[0] if len(matter) == 1 else None

    def difference(self, point: PointResults) -> Difference | None:
        """A point less its baseline; None for a baseline, and where no seed is common to the two."""
        baseline = None if point.is_baseline else self.baseline_of(point)
        return None if baseline is None else paired_difference(point.scores, baseline.scores)

    def by(self, metric: str) -> SweepResults:
        """The same points with another figure of their trials as score."""
        points = [
            replace(
                point, trials=tuple(replace(t, score=t.values.get(metric)) for t in point.trials)
            )
            for point in self.points
        ]
        return replace(self, metric=metric, points=tuple(points))

    @property
    def reported(self) -> SweepResults:
        """By test images where validation images judged: a point's own choice flatters its score."""
        metric = self.metric.replace("validation_", "test_")
        return self if metric == self.metric else self.by(metric)

    def records(self) -> list[dict[str, Any]]:
        """Each point as plain values."""
        return [
            {
                "settings": point.settings,
                "is_baseline": point.is_baseline,
                "scores": point.scores,
                "mean": point.mean,
                "deviation": point.deviation,
                "difference": found and asdict(found),
            }
            for point in self.points
            for found in [self.difference(point)]
        ]

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

    A point with a failed or stopped trial is left out: its mean over the other seeds would be chosen. So is
    a control, which nobody would train.
    """
    complete = {
        i: point.mean
        for i, point in enumerate(points)
        if point.complete and setting(point.job, "control", "none") == "none"
    }
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
    floats = [field.name for field in results.schema if pa.types.is_floating(field.type)]
    numbers = [name for name in floats if name not in SPAN]
    seeds_column = results.column("seed")
    if metric not in numbers or description["mode"] not in ("max", "min"):
        raise ValueError(f"no column of numbers {metric}, or no mode {description['mode']}")
    if not pa.types.is_integer(seeds_column.type) or seeds_column.null_count:
        raise ValueError("seeds are no numbers")
    for row in results.to_pylist():
        trial = _trial(row, metric, numbers)
        seeds = group(groups, trial, keys)
        if trial.seed not in seeds or seeds[trial.seed].status != "done":  # a search may come again
            seeds[trial.seed] = trial
    name, report, mode = (description[key] for key in ("name", "report", "mode"))
    return SweepResults.of(name, metric, keys, baseline, groups, report=report, mode=mode)


def group(
    groups: dict[str, dict[int, Trial]], trial: Trial, keys: Sequence[str]
) -> dict[int, Trial]:
    """By seed, the trials of the trial's point; a new one where it is the first."""
    return groups.setdefault(_identity(trial.job, keys), {})


def _trial(row: Mapping[str, Any], metric: str, numbers: Sequence[str]) -> Trial:
    return Trial(
        name=row["trial"],
        seed=row["seed"],
        status=row["status"],
        error=row["error"],
        score=row[metric],
        values={name: row[name] for name in numbers},
        job=json.loads(row["job"]),
        hardware=row.get("hardware"),
        span=_span(row),
    )


def _span(row: Mapping[str, Any]) -> tuple[float, float] | None:
    started, ended = (row.get(name) for name in SPAN)
    return None if started is None or ended is None else (started, ended)


def _identity(job: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Equal for jobs of one point: what they compute, but for the seeds."""
    rest = {key: value for key, value in job.items() if key not in IGNORED}
    if "data.split_seed" not in keys and isinstance(rest.get("data"), dict):
        rest["data"] = {k: v for k, v in rest["data"].items() if k != "split_seed"}
    return json.dumps(rest, sort_keys=True)
