"""The state of a storage and of a machine, and the schema of job files."""

from __future__ import annotations

from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, StorageOption, app


@app.command()
def gc(
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE", help="Path or URI of a job's storage.")
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete it; without this, only say what it is.")
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="HOURS", help="Spare what is younger: it may be in use.")
    ] = 24.0,
) -> None:
    """Find what failed and abandoned runs left in a storage, and delete it with --delete."""
    from cwerm.upkeep.garbage import collect_garbage

    collect_garbage(storage, delete=delete, older_than_hours=older_than)


@app.command()
def repair(
    storage: Annotated[
        str, typer.Argument(metavar="STORAGE", help="Path or URI of a job's storage.")
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Take it out; without this, only say what it is.")
    ] = False,
) -> None:
    """Find what is damaged in a storage, and take it out with --delete, to be made anew."""
    from cwerm.upkeep.repair import repair

    repair(storage, delete=delete)


@app.command()
def doctor(storage: StorageOption = None, address: AddressOption = None) -> None:
    """Say what this machine or cluster offers, and what is missing."""
    from cwerm.upkeep.doctor import examine

    if not examine(storage, address):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON schema of job files, for editors."""
    import json

    from cwerm.runs.preflight import job_schema

    typer.echo(json.dumps(job_schema(), indent=2))
