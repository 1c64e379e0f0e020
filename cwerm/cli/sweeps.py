"""Sweeps over jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, JobFile, Overrides, StorageOption, app, settings


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
) -> None:
    """Run a job over a search space, and compare the points."""
    from cwerm.sweeps.sweep import sweep
    from cwerm.terminal import console

    folder = sweep(tune, job, overrides or [], settings(storage, address), resume=resume)
    console.answer({"sweep": folder})
