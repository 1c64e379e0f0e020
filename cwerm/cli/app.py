"""The application that the commands belong to, and the arguments that several of them share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cwerm.job.tree import Job

app = typer.Typer(
    help="Coreset-based data reweighting: weights for labelled images, and a model trained with them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job; see jobs/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[section.key=value ...]", help="Settings that replace the file's."),
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", help="Where artifacts and runs lie: path or s3:// URI.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; default: this machine.")
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The run's folder: path or URI.")]


def load(job: Path, overrides: list[str] | None, storage: str | None, address: str | None) -> Job:
    """The job of a file, with the command line's settings in place of its own."""
    from cwerm.job.tree import load_job
    from cwerm.terminal import console

    return load_job(job, overrides or [], settings(storage, address), note=console.note)


def settings(storage: str | None, address: str | None) -> dict[str, str]:
    """What was given by options, by the keys of the job."""
    options = {"storage": storage, "resources.address": address}
    return {key: value for key, value in options.items() if value is not None}
