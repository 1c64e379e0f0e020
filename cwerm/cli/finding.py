"""The command that needs no job file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, Overrides, StorageOption, app, settings


@app.command()
def find(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="Labelled images: whatever data.source can be.")
    ],
    overrides: Overrides = None,
    corrections: Annotated[
        str | None, typer.Option(help="What the page saved: decisions on single labels.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Local folder for what is found.")] = Path("suspects"),
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Find wrong labels in a folder of images, without a job file and without training."""
    from cwerm.finding.find import find
    from cwerm.terminal import console

    options = settings(storage, address)
    if corrections is not None:
        options["data.corrections"] = corrections
    console.answer(find(source, to, overrides or [], options).record())
