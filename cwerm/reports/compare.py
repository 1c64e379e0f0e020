"""`cwerm compare`: finished runs side by side, paired by seed where they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwerm.errors import UserError
from cwerm.reports import figure_style, figures
from cwerm.reports.comparison import SweepResults, group
from cwerm.reports.page import markdown, print_table
from cwerm.reports.points import IGNORED, Trial, matters, setting
from cwerm.reports.sweep_tables import as_csv, points_table
from cwerm.runs.files import make_folder, write_file
from cwerm.runs.summary import FinishedRun, address
from cwerm.terminal import console

METRIC = "test_accuracy"
FIGURES = (
    METRIC,
    "test_accuracy_top5",
    "validation_accuracy",
    "train_accuracy",
    "test_expected_calibration_error",
)
NAME = "comparison"


def compare(runs: Sequence[str], to: Path | None = None) -> SweepResults:
    """Print the runs' table, and write it and its figure to the local folder ``to``, if one is given.

    Runs of equal jobs but for the seed are one row. Plain training is what the others are compared with, or
    where there is none the first run.

    Raises:
        UserError: fewer than two runs, one that is not finished, or files that can't be written.
    """
    trials = [trial_of(FinishedRun(folder)) for folder in dict.fromkeys(runs)]
    if len(trials) < 2:
        raise UserError("RUN: one run has nothing to be compared with; give two or more")
    results, notes = compared([trial for trial, _ in trials], [tests for _, tests in trials])
    table = points_table(results, named=all(len(point.trials) == 1 for point in results.points))
    print_table(table)
    for note in notes:
        console.note(note)
    if to is not None:
        _write(to, results, [markdown(table), *notes])
    return results


def _write(to: Path, results: SweepResults, text: Sequence[str]) -> None:
    drawn = figure_style.images(figures.accuracy_by_setting(results))
    files = {f"{NAME}.{kind}": data for kind, data in drawn.items()}
    files[f"{NAME}.csv"] = as_csv(results).encode()
    files[f"{NAME}.md"] = "\n\n".join([*text, ""]).encode()
    make_folder(to)
    for name, data in files.items():
        write_file(to / name, data)
    for name in (f"{NAME}.png", f"{NAME}.csv"):
        console.out.print(f"{name:<15} {to / name}", soft_wrap=True, markup=False)


def compared(trials: Sequence[Trial], tests: Sequence[str]) -> tuple[SweepResults, list[str]]:
    """The runs as points, and remarks; ``tests`` tells the test images of each run from any others."""
    keys = varying_keys([trial.job for trial in trials])
    plain = next((trial for trial in trials if trial.job["method"] == "erm"), trials[0])
    baseline = {key: setting(plain.job, key) for key in keys} if keys else {}
    notes = []
    groups: dict[str, dict[int, Trial]] = {}
    for trial in trials:
        seeds = group(groups, trial, keys)
        if trial.seed in seeds:
            notes.append(
                f"{trial.name} has the job and the seed of {seeds[trial.seed].name}, which counts"
            )
        seeds.setdefault(trial.seed, trial)
    if len({*tests}) > 1:
        other = next(i for i, test in enumerate(tests) if test != tests[0])
        notes.append(
            f"not paired by seed: {trials[0].name} and {trials[other].name} were tested on other images"
        )
        baseline = {}
    results = SweepResults.of(NAME, METRIC, keys, baseline, groups)
    alone = [point for point in results.points if not point.is_baseline]
    if baseline and any(results.difference(point) is None for point in alone):
        notes.append("where no difference stands, no seed is common to a row and the baseline")
    return results, notes


def varying_keys(jobs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Dotted keys whose values differ, the method first; without what changes no result."""
    flat = [
        {k: v for k, v in flat_keys(job).items() if not k.startswith("train.") or matters(job, k)}
        for job in jobs
    ]
    names = dict.fromkeys(name for values in flat for name in values)
    found = [
        name
        for name in names
        # what trains on features has no settings of images, which then tell nothing apart
        if len(
            {repr(values.get(name)) for values in flat if name in values or name[:6] != "train."}
        )
        > 1
    ]
    return tuple(sorted(found, key=lambda name: name != "method"))


def flat_keys(job: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a job by dotted key, without what changes no result."""
    return dict(_flat(job))


def _flat(job: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in job.items():
        if not before and name in IGNORED:
            continue
        nested = isinstance(value, Mapping)
        found += _flat(value, f"{before}{name}.") if nested else [(f"{before}{name}", value)]
    return found


def trial_of(run: FinishedRun) -> tuple[Trial, str]:
    """A run as a trial, and what tells its test images from any others."""
    summary = run.summary
    seconds = {f"seconds_{name}": value for name, value in summary["seconds"].items()}
    values = {name: summary.get(name) for name in FIGURES} | seconds
    values["seconds_total"] = sum(summary["seconds"].values())
    job, (_, tests) = run.job.model_dump(), address(run.folder, summary, "test_images")
    name, seed = summary["name"], summary["seed"]
    return Trial(name, seed, "done", None, values[METRIC], values, job), tests.split("/")[2]
