"""The application that the commands belong to, and the arguments that several of them share."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cwerm.job.tree import Job

app = typer.Typer(
    help="Find wrong labels among images, weigh every image, and train a model that is not misled.",
    epilog="Every command takes --quiet, which prints errors alone, and --json, which prints one line of "
    "JSON on standard output and all else on standard error. Exit codes: 0, it is done; 1, doctor found a "
    "problem, or something failed that is no mistake of yours; 2, a mistake in what was given, told in "
    "one line; 130, 143 or 129, it was told to end. cwerm --install-completion completes in your shell.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cwerm {version('cwerm')}")
        raise typer.Exit


@app.callback()
def _main(
    shown: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    del shown


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
