"""The command that needs no job file."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, StorageOption, app, settings

SETTING = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*=")  # and no path, such as ./label=cat


@app.command()
def find(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="Labelled images: whatever data.source can be; or a job file."
        ),
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
    to: Annotated[
        str, typer.Option(help="Folder for what is found, or s3://bucket/prefix.")
    ] = "suspects",
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Find wrong labels in a folder of images, without a job file and without training."""
    from cwerm.finding.elsewhere import find_to
    from cwerm.terminal import console

    options = settings(storage, address)
    if corrections is not None:
        options["data.corrections"] = corrections
    sources, overrides = sorted_out([source, *(more or [])])
    console.answer(find_to(sources, to, overrides, options))


def sorted_out(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Places of images, and settings of a job."""
    overrides = [text for text in arguments if SETTING.match(text)]
    return [text for text in arguments if not SETTING.match(text)], overrides
