"""Jobs on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import Overrides, StorageOption, app, load, settings
from cwerm.cli.finding import sorted_out
from cwerm.errors import UserError


@app.command()
def submit(
    job: Annotated[
        str,
        typer.Argument(metavar="JOB.yaml", help="The job; see jobs/. With --find also images."),
    ],
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
    find: Annotated[
        bool,
        typer.Option(
            "--find", help="Find wrong labels there, as `cwerm find` does, and train nothing."
        ),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(help="With --find: local folder for what is found; default: suspects."),
    ] = None,
) -> None:
    """Run a job on a Ray cluster, and follow it: exit code and logs are the job's."""
    from cwerm.submission.submit import find_dashboard, submit

    find_dashboard(address)
    options = settings(storage, None)
    if resume and tune is None:
        raise UserError("--resume: this is for a sweep; a job goes on by itself, leave it out")
    if to is not None and not find:
        raise UserError("--to: this is for --find; leave it out")
    if find:
        if tune is not None:
            raise UserError("--find: it trains nothing, and a sweep does; leave one of both out")
        arguments = [job, *(overrides or [])]
        sys.exit(_find(arguments, options, address, working_dir, detach, to or Path("suspects")))
    if tune is None:
        loaded, sweep = load(Path(job), overrides, storage, None), None
    else:
        from cwerm.sweeps.space import load_both

        sweep, loaded = load_both(tune, Path(job), overrides or [], options)
    sys.exit(submit(loaded, address, working_dir, detach, sweep=sweep, resume=resume))


def _find(
    arguments: list[str],
    options: dict[str, str],
    address: str | None,
    working_dir: Path | None,
    detach: bool,
    to: Path,
) -> int:
    """What `cwerm find` does, there, and what it found here; the exit code."""
    from cwerm.finding.elsewhere import fetch_found, place_of
    from cwerm.finding.find import job_to_find
    from cwerm.submission.submit import submit
    from cwerm.terminal import console

    sources, overrides = sorted_out(arguments)
    job = job_to_find(sources, overrides, options)
    if job.features.source or job.features.probabilities:
        raise UserError("--find: where no image is read no cluster is needed; use `cwerm find`")
    code = submit(job, address, working_dir, detach, find_to=place_of(job))
    if code == 0 and not detach:
        console.answer({"files": fetch_found(job, to)})
    return code
