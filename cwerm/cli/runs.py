"""Commands that run a job, or a stage of it."""

from __future__ import annotations

from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, JobFile, Overrides, StorageOption, app, load
from cwerm.errors import UserError, did_you_mean


@app.command()
def run(
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a finished run of the same name.")
    ] = False,
) -> None:
    """Run a job: every stage that is not in the storage yet."""
    loaded = load(job, overrides, storage, address)  # a mistake in it shows before torch is loaded

    from cwerm import pipeline
    from cwerm.terminal import console

    made = pipeline.run(loaded, overwrite=overwrite)
    console.answer({"run": made.folder, **made.summary})


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

    names = pipeline.plan(loaded).names
    if name not in names:
        hint = did_you_mean(name, names) or f"; its stages: {', '.join(names)}"
        raise UserError(f"{name}: no stage of method {loaded.method}{hint}")
    artifact = pipeline.run_one(name, loaded)
    console.out.print(artifact, soft_wrap=True, markup=False)
    console.answer({"artifact": artifact})
