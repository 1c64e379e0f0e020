"""Commands that run a job, or a stage of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cwerm.cli.app import AddressOption, JobFile, Overrides, StorageOption, app, load
from cwerm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cwerm.job.tree import Job

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be made, and about how long it takes; make nothing."
    ),
]
JobsAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB.yaml ...] [section.key=value ...]",
        help="Further jobs; settings that replace those of all.",
    ),
]


def _jobs(job: Path, others: list[str]) -> tuple[list[Path], list[str]]:
    """The job files among the arguments, and the overrides."""
    files = [text for text in others if "=" not in text and text.endswith((".yaml", ".yml"))]
    return [job, *map(Path, files)], [text for text in others if text not in files]


def tell_forecast(jobs: list[Job]) -> None:
    """Print what the jobs would make."""
    from cwerm.forecast.forecast import forecast
    from cwerm.terminal import console

    found = forecast(jobs)
    found.tell()
    console.answer(found.describe())


@app.command()
def run(
    job: JobFile,
    overrides: JobsAndOverrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a finished run of the same name.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Run a job: every stage that is not in the storage yet. Of several, all, and set them side by side."""
    files, others = _jobs(job, overrides or [])
    # a mistake in one shows before torch is loaded, and before any of them runs
    jobs = [load(file, others, storage, address) for file in files]
    if dry_run:
        tell_forecast(jobs)
        return

    from cwerm import pipeline
    from cwerm.reports.report import add_report
    from cwerm.terminal import console

    made = [pipeline.run(loaded, overwrite=overwrite) for loaded in jobs]
    for finished, loaded in zip(made, jobs, strict=True):  # each can have the others beside it
        add_report(finished, loaded.s3)
    if len(made) == 1:
        console.answer({"run": made[0].folder, **made[0].summary})
        return
    from cwerm.reports.compare import compare

    results = compare([run.folder for run in made])
    runs = [{"run": run.folder, **run.summary} for run in made]
    console.answer({"runs": runs, "points": results.records()})


@app.command()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ingest, extract, select, ...")],
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Run one stage of a job, whose earlier stages have run."""
    loaded = load(job, overrides, storage, address)

    from cwerm import pipeline
    from cwerm.terminal import console

    names = pipeline.plan(loaded, "train", *pipeline.beside(loaded)).names
    if name not in names:
        hint = did_you_mean(name, names) or f"; its stages: {', '.join(names)}"
        raise UserError(f"{name}: no stage of method {loaded.method}{hint}")
    artifact = pipeline.run_one(name, loaded)
    console.out.print(artifact, soft_wrap=True, markup=False)
    console.answer({"artifact": artifact})
