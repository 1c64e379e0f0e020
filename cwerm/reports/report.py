"""`cwerm report`: tables, figures and one HTML page for a finished sweep, or for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.reports import figure_style, figures
from cwerm.reports.comparison import SweepResults, read_sweep
from cwerm.reports.page import Table, markdown, page, print_table
from cwerm.reports.run.page import mark, read_run, summary_table
from cwerm.reports.sweep_tables import (
    as_csv,
    best_line,
    hardware_lines,
    pivots,
    points_table,
    unfinished_table,
    unpaired_line,
)
from cwerm.runs.folder import RunResult
from cwerm.store.plain_types import read_parquet
from cwerm.store.storage import Storage, at_once, open_storage, parse_mapping
from cwerm.terminal import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
AT_ONCE = 50_000  # images of a run whose report is made as it ends, in seconds
NOTE = (
    "Mean ± sample standard deviation over the n seeds that are done. The difference to the baseline is "
    "paired by seed, with its 95 % t-interval, not corrected for the number of points; where validation "
    "images judge, it is that of the test images, which have no part in the choice. Seconds are what "
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
        print_table(summary_table(folder))
        return _write_run(folder, storage, to)
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
    files[PAGE] = page(title, tables, pictures, notes).encode()
    for table in tables:
        print_table(table)
    return _finished(files, storage, to)


def add_report(run: RunResult, s3: S3) -> None:
    """Write the report of a run that has just ended, unless it is there; of a large one, print the command.

    So too where the job's own settings ``s3`` are needed to reach its folder, which reports do not know. A
    run is finished without it: what stands in its way is told.
    """
    folder = run.folder
    unknown = folder.startswith("s3:") and s3 != S3()
    if unknown or run.summary["num_samples"] > AT_ONCE:
        console.out.print(f"report       cwerm report {folder}", soft_wrap=True, markup=False)
        return
    try:
        storage = open_storage(folder)
        if _is_there(storage, mark(run.summary)):
            page = storage.uri(f"report/{PAGE}")
            console.out.print(f"report       {page}", soft_wrap=True, markup=False)
        else:
            _write_run(folder, storage, None)
    except UserError as error:
        console.note(f"no report: {error}")


def _is_there(storage: Storage, wanted: str) -> bool:
    try:
        return wanted.encode() in storage.read_bytes(f"report/{PAGE}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def _finished(files: Mapping[str, bytes], storage: Storage, to: Path | None) -> list[str]:
    written = _write(open_storage(str(to)) if to else storage, files, "" if to else "report/")
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
    reported = sweep.reported
    tables = [*pivots(reported), points_table(sweep)]
    notes = [NOTE, *best_line(sweep), *unpaired_line(reported), *hardware_lines(sweep)]
    unfinished = unfinished_table(sweep)
    text = "\n\n".join([*map(markdown, tables), *notes]) + "\n"
    if unfinished.rows:
        tables.append(unfinished)
        text += f"\n{markdown(unfinished)}\n"
    files = {"table.md": text.encode(), "table.csv": as_csv(reported).encode()}
    return f"Sweep {sweep.name}", tables, _figures(reported), files, notes


def _read_sweep(folder: str, description: bytes, results: bytes) -> SweepResults:
    try:
        return read_sweep(parse_mapping(description), read_parquet(results, "results.parquet"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(
            f"{folder}: sweep.json or results.parquet is damaged "
            f"({type(error).__name__}: {str(error).partition(';')[0]}); run the sweep again, which "
            "takes up what is there"
        ) from None


def _write_run(folder: str, storage: Storage, to: Path | None) -> list[str]:
    run = read_run(folder)
    page = run.html().encode()
    return _finished(run.files | {PAGE: page}, storage, to)


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
        drawn = {
            "accuracy_by_ratio": (
                f"{spread}, by the size of the coreset.",
                figures.accuracy_by_ratio(sweep),
            ),
            "seconds_by_ratio": (times, figures.seconds_by_ratio(sweep)),
        }
        known = sweep.by("auroc")
        if any(point.n for point in known.points):
            seen = (
                "How well what was learned tells wrong labels, which are known here, from right ones (area "
                "under the ROC curve; 0.5 is chance), by the size of the coreset."
            )
            drawn["auroc_by_ratio"] = (seen, figures.accuracy_by_ratio(known))
        return drawn
    if sweep.report == "backbones" and varies("features.backbone"):
        by_backbone = figures.accuracy_by_backbone(sweep)
        return {
            "accuracy_by_backbone": (f"{spread}, by the backbone of the features.", by_backbone)
        }
    return {"accuracy": (f"{spread}; dotted: the baseline.", figures.accuracy_by_setting(sweep))}


def _write(target: Storage, files: Mapping[str, bytes], folder: str) -> list[str]:
    """All files, the page last."""

    def put(name: str) -> None:
        try:
            target.write_bytes(f"{folder}{name}", files[name])
        except OSError as error:
            raise UserError(
                f"{target.uri(folder + name)}: can't be written ({error.strerror}); "
                "choose another place with --to"
            ) from None

    *others, last = files
    at_once(put, others)
    put(last)
    return [target.uri(f"{folder}{name}") for name in files]
