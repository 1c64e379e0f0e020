"""The tables of a sweep: methods by settings, every point, what is not done; and all of it as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace

from cwerm.reports import figure_style
from cwerm.reports.comparison import Difference, SweepResults
from cwerm.reports.page import NONE, Table
from cwerm.reports.panels import describe, panels, shown, varying
from cwerm.reports.points import PointResults, Trial, setting


def pivots(sweep: SweepResults) -> list[Table]:
    """Methods by settings: as the paper's Table 1 with minutes, a table for each data set; or robustness."""
    varied = varying(sweep)
    data = [key for key in varied if key.startswith("data.")]
    columns = [key for key in varied if key in ("features.backbone", "train.model")]
    if sweep.report == "table1":
        titles = data
    elif sweep.report == "robustness":
        titles, columns = [], [key for key in varied if key.startswith(("data.", "train."))]
    else:
        return []
    keys = [key for key in ["method", *varied] if key not in {*titles, *columns}]
    return [
        _pivot(sweep, outer.points, outer.title or sweep.name, columns, [*dict.fromkeys(keys)])
        for outer in panels(sweep, titles)
    ]


def _pivot(
    sweep: SweepResults,
    points: Sequence[PointResults],
    title: str,
    columns: list[str],
    keys: list[str],
) -> Table:
    _, label = figure_style.scale(sweep.metric)
    cells: dict[str, dict[str, PointResults]] = {}
    for panel in panels(sweep, columns):
        inner = tuple(point for point in panel.points if point in points)
        if inner:
            cells[panel.title or label] = replace(panel, points=inner).rows(keys)
    names = dict.fromkeys(name for column in cells.values() for name in column)
    header, rows = ["method"], [[name] for name in names]
    for place, column in cells.items():
        found = [column.get(name) for name in names]
        header.append(place)
        for row, point in zip(rows, found, strict=True):
            row.append(_score(sweep, point))
        if sweep.report == "table1":
            header.append("minutes")
            for row, point in zip(rows, found, strict=True):
                seconds = None if point is None else point.seconds("total")
                row.append(NONE if seconds is None else f"{seconds / 60:,.2f}")
    return Table(f"{title}: {label}", header, rows)


def points_table(sweep: SweepResults, *, named: bool = False) -> Table:
    """A row for each point: what it was judged by, and where validation images judge its test accuracy.

    Where they are ``named``, each is one run: it has its name, and its settings in words, not a column a key.
    """
    keys = varying(sweep) or [*sweep.keys] or ["method"]
    reported, known = sweep.reported, sweep.by("auroc")
    shown_by = [sweep] if reported is sweep else [sweep, reported]
    place = len(shown_by)  # of the difference, which is that of the reported
    if sweep.metric != "auroc" and any(point.n for point in known.points):
        shown_by.append(known)
    labels = [figure_style.scale(each.metric)[1] for each in shown_by]
    compared = any(point.is_baseline for point in sweep.points)
    if compared:
        labels.insert(place, "difference" if named else "difference [95 %]")
    rows = []
    for number, point in enumerate(sweep.points):
        settings = (
            [point.trials[0].name, describe(point.job, keys)]
            if named
            else [
                shown(key, setting(point.job, key)) if point.relevant(key) else NONE for key in keys
            ]
        )
        cells = [_score(each, each.points[number]) for each in shown_by]
        if compared:
            mine = reported.points[number]
            change = _change(reported, reported.difference(mine), mine.n)
            cells.insert(place, "baseline" if point.is_baseline else change)
        seconds = point.seconds("total")
        time = NONE if seconds is None else f"{seconds:,.1f}"
        count = [] if named else [str(point.n)]
        row = [*settings, *count, *cells, time]
        # points that differ in what has no effect are the same trainings; runs are each asked for
        if named or row not in rows:
            rows.append(row)
    words = ["run", "settings"] if named else keys
    header = [*words, *([] if named else ["n"]), *labels, "seconds"]
    return Table(f"All points of {sweep.name}", header, rows, len(words))


def unpaired_line(sweep: SweepResults) -> list[str]:
    """A line on points that are compared with nothing, where others are."""
    if not any(point.is_baseline for point in sweep.points):
        return []
    others = [point for point in sweep.points if point.n and not point.is_baseline]
    alone = [describe(p.job, varying(sweep)) for p in others if sweep.baseline_of(p) is None]
    if not alone:
        return []
    return [
        f"Without a difference: {'; '.join(dict.fromkeys(alone))}. No baseline has these settings, or "
        "several have that differ in a key of their own."
    ]


def hardware_lines(sweep: SweepResults) -> list[str]:
    """What the seconds were measured on, and whether trials shared it."""
    done = [trial for trial in sweep.trials if trial.status == "done"]
    found = dict.fromkeys(trial.hardware for trial in done if trial.hardware)
    lines = [f"Trained on: {'; '.join(found)}."] if found else []
    beside = sum(_ran_beside(trial, done) for trial in done)
    if beside:
        lines.append(
            f"{beside} of {len(done)} trials ran beside others, and what they made took longer than it "
            "does alone; max_concurrent_trials: 1 measures each for itself."
        )
    return lines


def _ran_beside(trial: Trial, others: Sequence[Trial]) -> bool:
    spans = [other.span for other in others if other is not trial]
    return trial.span is not None and any(
        span is not None and span[0] < trial.span[1] and trial.span[0] < span[1] for span in spans
    )


def unfinished_table(sweep: SweepResults) -> Table:
    """Trials that failed or were stopped, and why."""
    rows = [
        [trial.name, describe(trial.job, varying(sweep)), trial.status,
         " ".join((trial.error or NONE).split()), str(trial.seed)]
        for trial in sweep.trials if trial.status != "done"
    ]  # fmt: skip
    header = ["trial", "settings", "status", "reason", "seed"]
    return Table("Failed and stopped trials", header, rows, 4)


def best_line(sweep: SweepResults) -> list[str]:
    """A line on the best point, where all points are of one data set."""
    best = sweep.best
    if best is None or len(sweep.points) < 2:
        return []
    if any(key.startswith("data.") for key in varying(sweep)):
        return []
    name = describe(best.job, varying(sweep)) or sweep.name
    line = f"Best mean of the points whose seeds are all done: {name}"
    reported = sweep.reported
    if sweep.metric.startswith("test_"):
        chosen = ". It is chosen by the test images, so that its figure flatters it."
    elif reported is sweep:
        chosen = "."
    else:
        tested = reported.points[sweep.points.index(best)]
        by, then = (
            f"{figure_style.scale(each.metric)[1].removesuffix(', %')} {_score(each, point)} %"
            for each, point in ((sweep, best), (reported, tested))
        )
        chosen = f", chosen by {by}; {then}."
    return [f"{line}{chosen}"]


def _score(sweep: SweepResults, point: PointResults | None) -> str:
    if point is None or point.mean is None:
        return NONE
    number = _number(sweep)
    spread = "" if point.deviation is None else f" ± {number(point.deviation)}"
    return f"{number(point.mean)}{spread}"


def _change(sweep: SweepResults, difference: Difference | None, n: int) -> str:
    """A difference, with the number of its pairs where that is not the point's number of seeds."""
    if difference is None:
        return NONE
    number = _number(sweep, "+")
    text = number(difference.mean)
    if difference.low is not None and difference.high is not None:
        text += f" [{number(difference.low)}, {number(difference.high)}]"
    return text if difference.n == n else f"{text} (n = {difference.n})"


def _number(sweep: SweepResults, sign: str = "") -> Callable[[float], str]:
    factor, _ = figure_style.scale(sweep.metric)
    digits = 2 if factor == 100 else 3
    return lambda value: f"{factor * value:{sign}.{digits}f}".replace("-", "−")  # noqa: RUF001


def as_csv(sweep: SweepResults) -> str:
    """Every point, keys as given in the jobs, figures unrounded."""
    # a run has the seconds of its own stages
    columns = [*dict.fromkeys(name for trial in sweep.trials for name in trial.values)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    comparison = ["difference", "difference_low", "difference_high", "common_seeds"]
    counts = ["baseline", "trials", "n", f"{sweep.metric}_mean", f"{sweep.metric}_sd"]
    writer.writerow([*sweep.keys, *counts, *comparison, *(f"{c}_mean" for c in columns
                                                          if c != sweep.metric)])  # fmt: skip
    for point in sweep.points:
        d = sweep.difference(point)
        compared = (None, None, None, 0) if d is None else (d.mean, d.low, d.high, d.n)
        figures_of = (point.mean, point.deviation, *compared)
        others = [point.average(column) for column in columns if column != sweep.metric]
        row = [
            *point.settings.values(), str(point.is_baseline).lower(), len(point.trials), point.n,
            *figures_of, *others,
        ]  # fmt: skip
        writer.writerow(row)
    return text.getvalue()
