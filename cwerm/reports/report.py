"""`cwerm report`: tables, figures and one HTML page for a finished sweep, or for a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cwerm.errors import UserError
from cwerm.reports import figure_style, figures
from cwerm.reports.comparison import Difference, PointResults, SweepResults, read_sweep, setting
from cwerm.reports.page import Table, markdown, page, print_table
from cwerm.reports.panels import describe, panels, shown, varying
from cwerm.reports.run_page import read_run
from cwerm.store.schema import read_parquet
from cwerm.store.storage import Storage, open_storage, parse_mapping
from cwerm.terminal import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "-"
CLASSES = "Classes"
NOTE = (
    "Mean ± sample standard deviation over the n seeds that are done. The difference to the baseline is "
    "paired by seed, with its 95 % t-interval, not corrected for the number of points. Seconds are what "
    "it took to make each artifact, also where it was reused."
)


def report(folder: str, to: Path | None = None) -> list[str]:
    """Write the report of a sweep's or a run's folder, and print its table.

    The files lie in the folder's ``report/``, or in the local directory ``to``: ``report.html``, each
    figure as PNG and SVG, and for a sweep ``table.md`` and ``table.csv`` (a row for each point, shares and
    seconds unrounded).

    Returns:
        Where each file lies.

    Raises:
        UserError: the folder holds neither, no trial is done, or the files can't be written.
    """
    storage = open_storage(folder)
    if storage.stat("sweep.json") is not None:
        title, tables, drawn, files, notes = _of_sweep(folder, storage)
    elif storage.stat("summary.json") is not None:
        title, tables, drawn, files, notes = _of_run(folder)
    else:
        raise UserError(
            f"{folder}: neither sweep.json nor summary.json; give the folder of a finished sweep or "
            "run, such as cwerm-store/sweeps/ratio or cwerm-store/runs/quickstart"
        )
    pictures = {}
    for name, (caption, figure) in drawn.items():
        made = figure_style.images(figure)
        files |= {f"{name}.{kind}": data for kind, data in made.items()}
        pictures[caption] = made["svg"]
    files["report.html"] = page(title, tables, pictures, notes).encode()
    written = _write(open_storage(str(to)) if to else storage, files, "" if to else "report/")
    for table in tables:
        if table.title != CLASSES:
            print_table(table)
    console.out.print(f"report       {written[-1]}", soft_wrap=True, markup=False)
    return written


_Parts = tuple[
    str, list[Table], "dict[str, tuple[str, Figure]]", dict[str, bytes], list[str]
]  # title, tables, figures with captions, further files, remarks


def _of_sweep(folder: str, storage: Storage) -> _Parts:
    description = storage.read_bytes("sweep.json")
    try:
        data = storage.read_bytes("results.parquet")
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no results.parquet yet; let `cwerm sweep` finish, which goes on where it stopped"
        ) from None
    sweep = _read_sweep(folder, description, data)
    if not any(point.n for point in sweep.points):
        reasons = [trial.error for trial in sweep.trials if trial.error]
        first = f"; the first says: {' '.join(reasons[0].split())}" if reasons else ""
        raise UserError(f"{folder}: none of {len(sweep.trials)} trials is done{first}")
    tables = [*_pivots(sweep), _points(sweep)]
    notes = [NOTE, *_best(sweep)]
    unfinished = _unfinished(sweep)
    text = "\n\n".join([*map(markdown, tables), *notes]) + "\n"
    if unfinished.rows:
        tables.append(unfinished)
        text += f"\n{markdown(unfinished)}\n"
    files = {"table.md": text.encode(), "table.csv": _csv(sweep).encode()}
    return f"Sweep {sweep.name}", tables, _figures(sweep), files, notes


def _read_sweep(folder: str, description: bytes, results: bytes) -> SweepResults:
    try:
        return read_sweep(parse_mapping(description), read_parquet(results, "results.parquet"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{folder}: sweep.json or results.parquet is damaged "
            f"({type(error).__name__}: {str(error).partition(';')[0]}); run the sweep again, which "
            "takes up what is there"
        ) from None


def _of_run(folder: str) -> _Parts:
    run = read_run(folder)
    name = run.summary["name"]
    summary = Table(f"Run {name}", ["", ""], [[*row] for row in run.rows()])
    classes = [
        [name, NONE if share is None else f"{100 * share:.2f}"]
        for name, share in run.classes().items()
    ]
    tables = [summary, Table(CLASSES, ["class", "test accuracy, %"], classes)]
    return f"Run {name}", tables, run.figures(), {}, []


def _figures(sweep: SweepResults) -> dict[str, tuple[str, Figure]]:
    """The figures of the sweep's kind, as far as its keys vary."""

    def varies(key: str) -> bool:
        return key in sweep.keys and any(p.n and p.relevant(key) for p in sweep.points)

    _, label = figure_style.scale(sweep.metric)
    spread = (
        f"{label[0].upper()}{label[1:]}: mean, one standard deviation, and each seed (small dots)"
    )
    if sweep.report == "ratio" and varies("coreset.ratio"):
        times = "Mean time of each stage, by the size of the coreset."
        return {
            "accuracy_by_ratio": (
                f"{spread}, by the size of the coreset.",
                figures.accuracy_by_ratio(sweep),
            ),
            "seconds_by_ratio": (times, figures.seconds_by_ratio(sweep)),
        }
    if sweep.report == "backbones" and varies("features.backbone"):
        drawn = figures.accuracy_by_backbone(sweep)
        return {"accuracy_by_backbone": (f"{spread}, by the backbone of the features.", drawn)}
    return {"accuracy": (f"{spread}; dotted: the baseline.", figures.accuracy_by_setting(sweep))}


def _pivots(sweep: SweepResults) -> list[Table]:
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


def _points(sweep: SweepResults) -> Table:
    """A row for each point."""
    keys = varying(sweep) or [*sweep.keys] or ["method"]
    _, label = figure_style.scale(sweep.metric)
    compared = any(point.is_baseline for point in sweep.points)
    header = [*keys, "n", label, *(["difference [95 %]"] if compared else []), "seconds"]
    rows = []
    for point in sweep.points:
        settings = [
            shown(key, setting(point.job, key)) if point.relevant(key) else NONE for key in keys
        ]
        change = "baseline" if point.is_baseline else _change(sweep, sweep.difference(point))
        seconds = point.seconds("total")
        time = NONE if seconds is None else f"{seconds:,.1f}"
        change_or_not = [change] if compared else []
        rows.append([*settings, str(point.n), _score(sweep, point), *change_or_not, time])
    return Table(f"All points of {sweep.name}", header, rows, len(keys))


def _unfinished(sweep: SweepResults) -> Table:
    rows = [
        [trial.name, describe(trial.job, varying(sweep)), trial.status,
         " ".join((trial.error or NONE).split()), str(trial.seed)]
        for trial in sweep.trials if trial.status != "done"
    ]  # fmt: skip
    header = ["trial", "settings", "status", "reason", "seed"]
    return Table("Failed and stopped trials", header, rows, 4)


def _best(sweep: SweepResults) -> list[str]:
    """A line on the best point, where all points are of one data set."""
    best = sweep.best
    if best is None or len(sweep.points) < 2:
        return []
    if any(key.startswith("data.") for key in varying(sweep)):
        return []
    chosen = (
        " It is chosen by the test images, so that its figure flatters it."
        if sweep.metric.startswith("test_")
        else ""
    )
    name = describe(best.job, varying(sweep)) or sweep.name
    return [f"Best mean of the points whose seeds are all done: {name}.{chosen}"]


def _score(sweep: SweepResults, point: PointResults | None) -> str:
    if point is None or point.mean is None:
        return NONE
    number = _number(sweep)
    spread = "" if point.deviation is None else f" ± {number(point.deviation)}"
    return f"{number(point.mean)}{spread}"


def _change(sweep: SweepResults, difference: Difference | None) -> str:
    if difference is None:
        return NONE
    number = _number(sweep, "+")
    if difference.low is None or difference.high is None:
        return number(difference.mean)
    return f"{number(difference.mean)} [{number(difference.low)}, {number(difference.high)}]"


def _number(sweep: SweepResults, sign: str = "") -> Callable[[float], str]:
    factor, _ = figure_style.scale(sweep.metric)
    digits = 2 if factor == 100 else 3
    return lambda value: f"{factor * value:{sign}.{digits}f}".replace("-", "−")  # noqa: RUF001


def _csv(sweep: SweepResults) -> str:
    """Every point, keys as given in the jobs, figures unrounded."""
    columns = [*sweep.trials[0].values]
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


def _write(target: Storage, files: Mapping[str, bytes], folder: str) -> list[str]:
    """All files, the page last."""
    for name, data in files.items():
        try:
            target.write_bytes(f"{folder}{name}", data)
        except OSError as error:
            raise UserError(
                f"{target.uri(folder + name)}: can't be written ({error.strerror}); "
                "choose another place with --to"
            ) from None
    return [target.uri(f"{folder}{name}") for name in files]
