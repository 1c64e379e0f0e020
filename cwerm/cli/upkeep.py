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
    from cwerm.terminal import console
    from cwerm.upkeep.garbage import collect_garbage

    found = collect_garbage(storage, delete=delete, older_than_hours=older_than)
    things = [{"kind": t.kind, "path": t.path, "bytes": t.size} for t in found]
    console.answer({"garbage": things, "deleted": delete})


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
    from cwerm.terminal import console
    from cwerm.upkeep.repair import repair

    found = repair(storage, delete=delete)
    things = [{"what": d.what, "path": d.path, "reason": d.reason} for d in found]
    console.answer({"damage": things, "deleted": delete})


@app.command()
def doctor(storage: StorageOption = None, address: AddressOption = None) -> int:
    """Say what this machine or cluster offers, and what is missing."""
    from cwerm.terminal import console
    from cwerm.upkeep.doctor import examine

    problems = examine(storage, address)
    console.answer({"problems": problems})
    return 1 if problems else 0


@app.command()
def schema(
    sweep: Annotated[bool, typer.Option("--sweep", help="Of sweep files instead.")] = False,
) -> None:
    """Print the JSON schema of job files, for editors."""
    import json

    if sweep:
        from cwerm.sweeps.file import Sweep

        tree = Sweep.model_json_schema()
    else:
        from cwerm.runs.preflight import job_schema

        tree = job_schema()
    typer.echo(json.dumps(tree, indent=2))
