"""The command line. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cwerm import ending
from cwerm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from cwerm.config import Job

_INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__  # typer exports only its subclass

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``cwerm``; the arguments are the process's own where they are not given."""
    ending.open_standard_streams()
    if arguments is None:
        ending.listen()
    try:
        code = _code(sys.argv[1:] if arguments is None else list(arguments))
    except BaseException as leaving:
        number = ending.exit_code()
        if number is None:
            raise
        if isinstance(leaving, SystemExit) and leaving.code == _INTERRUPTED:
            sys.exit(number)  # the command has said what becomes of its work
        code = _INTERRUPTED  # whatever became of the interruption on its way
    if code == _INTERRUPTED:
        ending.tell()
        code = ending.exit_code() or code
    sys.exit(code)


def _code(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    try:
        return app(arguments or ["--help"], prog_name="cwerm", standalone_mode=False) or 0
    except UserError as error:
        ending.say(str(error))
        return 2
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "cwerm"
        ending.say(f"{error.format_message().rstrip('.')}; see `{command} --help`")
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


@app.command()
def run(
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Run a job: every stage that is not in the storage yet."""
    loaded = _load(job, overrides, storage, address)  # a mistake in it shows before torch is loaded

    from cwerm import pipeline

    pipeline.run(loaded)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ingest, extract, select, ...")],
    job: JobFile,
    overrides: Overrides = None,
    storage: StorageOption = None,
    address: AddressOption = None,
) -> None:
    """Run one stage of a job, whose earlier stages have run."""
    loaded = _load(job, overrides, storage, address)

    from cwerm import console, pipeline

    names = [stage.NAME for stage in pipeline.METHODS[loaded.method]]
    if name not in names:
        hint = did_you_mean(name, names) or f"; its stages: {', '.join(names)}"
        raise UserError(f"{name}: no stage of method {loaded.method}{hint}")
    console.out.print(pipeline.run_one(name, loaded), soft_wrap=True, markup=False)


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
    from cwerm.sweep import sweep

    sweep(tune, job, overrides or [], _options(storage, address), resume=resume)


@app.command()
def report(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="The folder of a run or a sweep: path or URI.")
    ],
    to: Annotated[Path | None, typer.Option(help="Local folder for the files.")] = None,
) -> None:
    """Make figures, tables and a page of a finished run or sweep."""
    from cwerm.report import report

    report(folder, to)


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
    from cwerm.submit import find_dashboard, submit

    find_dashboard(address)
    options = _options(storage, None)
    if tune is None:
        loaded, settings = _load(job, overrides, storage, None), None
        if resume:
            raise UserError("--resume: this is for a sweep; a job goes on by itself, leave it out")
    else:
        from cwerm.sweeps.space import load_both

        settings, loaded = load_both(tune, job, overrides or [], options)
    sys.exit(submit(loaded, address, working_dir, detach, sweep=settings, resume=resume))


@app.command()
def inspect(
    run: RunFolder,
    lowest: Annotated[int, typer.Option(min=1, help="Samples of lowest weight to show.")] = 20,
    to: Annotated[str, typer.Option(help="PNG file for their contact sheet.")] = "lowest.png",
) -> None:
    """Show the samples of lowest weight: a table and a PNG."""
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
    from cwerm.garbage import collect_garbage

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
    from cwerm.repair import repair

    repair(storage, delete=delete)


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


def _load(job: Path, overrides: list[str] | None, storage: str | None, address: str | None) -> Job:
    from cwerm.config import load_job

    return load_job(job, overrides or [], _options(storage, address))


def _options(storage: str | None, address: str | None) -> dict[str, str]:
    options = {"storage": storage, "resources.address": address}
    return {key: value for key, value in options.items() if value is not None}


if __name__ == "__main__":
    main()
