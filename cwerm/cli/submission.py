"""Jobs on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import JobFile, Overrides, StorageOption, app, load, settings
from cwerm.errors import UserError


@app.command()
def submit(
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The cluster's dashboard, such as http://127.0.0.1:8265; default: RAY_ADDRESS."
        ),
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="Folder to ship; relative paths in the job lie in it.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the id and return at once.")
    ] = False,
    tune: Annotated[
        Path | None,
        typer.Option("--sweep", metavar="TUNE.yaml", help="Run this sweep of the job there."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted sweep.")
    ] = False,
) -> None:
    """Run a job on a Ray cluster, and follow it: exit code and logs are the job's."""
    from cwerm.submission.submit import find_dashboard, submit

    find_dashboard(address)
    options = settings(storage, None)
    if tune is None:
        loaded, sweep = load(job, overrides, storage, None), None
        if resume:
            raise UserError("--resume: this is for a sweep; a job goes on by itself, leave it out")
    else:
        from cwerm.sweeps.space import load_both

        sweep, loaded = load_both(tune, job, overrides or [], options)
    sys.exit(submit(loaded, address, working_dir, detach, sweep=sweep, resume=resume))
