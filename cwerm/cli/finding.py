"""The command that needs no job file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, StorageOption, app, settings

SETTING = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*=")  # and no path, such as ./label=cat


@app.command()
def find(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="Labelled images: whatever data.source can be.")
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH ...] [section.key=value ...]",
            help="More images, and settings of a job.",
        ),
    ] = None,
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
    overrides = [text for text in more or [] if SETTING.match(text)]
    sources = [source, *(text for text in more or [] if not SETTING.match(text))]
    console.answer(find(sources, to, overrides, options).record())
