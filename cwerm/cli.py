"""The command line. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cwerm.errors import UserError, did_you_mean

app = typer.Typer(
    help="Coreset-based data reweighting: weights for labelled images, and a model trained with them.",
    no_args_is_help=True,
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


def main() -> None:
    """Entry point of ``cwerm``."""
    try:
        app()
    except UserError as error:
        print(f"cwerm: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


@app.command()
def run(
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Run a job: every stage that is not in the storage yet."""
    from cwerm import pipeline

    pipeline.run(_load(job, overrides, storage, address))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ingest, extract, select, ...")],
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Run one stage of a job, whose earlier stages have run."""
    from cwerm import console, pipeline
    from cwerm.artifacts import ArtifactStore
    from cwerm.preflight import check
    from cwerm.storage import open_storage

    loaded = _load(job, overrides, storage, address)
    names = [stage.NAME for stage in pipeline.METHODS[loaded.method]]
    if name not in names:
        hint = did_you_mean(name, names)
        raise UserError(
            f"stage '{name}' is not one of method {loaded.method}: {', '.join(names)}{hint}"
        )
    store = ArtifactStore(open_storage(loaded.storage))
    check(loaded, store)
    result = pipeline.run_stage(pipeline.STAGES[name], loaded, store)
    console.out.print(store.uri(result.artifact), soft_wrap=True)


@app.command()
def inspect(
    run: RunFolder,
    lowest: Annotated[int, typer.Option(min=1, help="Samples of lowest weight to show.")] = 20,
    to: Annotated[str, typer.Option(help="PNG file for their contact sheet.")] = "lowest.png",
) -> None:
    """Show the samples of lowest weight, as a table and as a contact sheet."""
    from cwerm.inspection import inspect_run

    inspect_run(run, lowest, Path(to))


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option(help="File: .parquet, .csv or .npy (weights by id).")],
) -> None:
    """Write a run's weights to a file."""
    from cwerm.inspection import export_weights

    export_weights(run, to)


@app.command()
def doctor(storage: StorageOption = None, address: AddressOption = None) -> None:
    """Say what this machine or cluster offers, and what is missing."""
    from cwerm.doctor import examine

    if not examine(storage, address):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON schema of job files, for editors."""
    import json

    from cwerm.config import Job

    typer.echo(json.dumps(Job.model_json_schema(), indent=2))


def _load(job: Path, overrides: list[str] | None, storage: str | None, address: str | None) -> Any:
    from cwerm.config import load_job

    options = {"storage": storage, "resources.address": address}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    return load_job(job, [*(overrides or []), *given])


if __name__ == "__main__":
    main()
