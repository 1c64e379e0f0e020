"""Sweeps over jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, JobFile, Overrides, StorageOption, app, settings
from cwerm.cli.runs import DryRun, tell_forecast


@app.command()
def sweep(
    tune: Annotated[Path, typer.Argument(metavar="TUNE.yaml", help="The sweep; see tune/.")],
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted sweep.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Run a job over a search space, and compare the points."""
    from cwerm.sweeps.sweep import prepare, sweep
    from cwerm.terminal import console

    given = (tune, job, overrides or [], settings(storage, address))
    if dry_run:
        prepared = prepare(*given)
        console.stage_line("sweep", f"{prepared.total} trials of {prepared.settings.name}")
        if not prepared.configs:
            console.note(
                "points are chosen as it goes; what follows is one of them, with all seeds"
            )
        tell_forecast(prepared.jobs)
        return
    folder = sweep(*given, resume=resume)
    console.answer({"sweep": folder})
