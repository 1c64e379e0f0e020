"""What a run or a sweep has left: pages, pictures and files of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cwerm.cli.app import AddressOption, Overrides, RunFolder, app, settings


@app.command()
def report(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="The folder of a run or a sweep: path or URI.")
    ],
    to: Annotated[Path | None, typer.Option(help="Local folder for the files.")] = None,
) -> None:
    """Make figures, tables and a page of a finished run or sweep."""
    from cwerm.reports.report import report
    from cwerm.terminal import console

    console.answer({"files": report(folder, to)})


@app.command()
def predict(
    run: RunFolder,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="An image, or a folder of images: path or URI.")
    ],
    overrides: Overrides = None,
    to: Annotated[Path, typer.Option(help="File: .csv or .parquet.")] = Path("predictions.csv"),
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Name no class that is less probable.")
    ] = 0.0,
    address: AddressOption = None,
) -> None:
    """Ask a run's model for the class of new images."""
    from cwerm.predicting.predict import predict
    from cwerm.terminal import console

    options = settings(None, address)
    made = predict(run, path, to, threshold=threshold, overrides=overrides or [], options=options)
    console.answer({"file": str(to), **made.record()})


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN ...", help="The runs' folders: paths or URIs.")
    ],
    to: Annotated[Path, typer.Option(help="Local folder for table and figure.")] = Path(
        "comparison"
    ),
) -> None:
    """Set finished runs side by side, paired by seed."""
    from cwerm.reports.compare import compare
    from cwerm.terminal import console

    console.answer({"folder": str(to), "points": compare(runs, to).records()})


@app.command()
def inspect(
    run: RunFolder,
    lowest: Annotated[int, typer.Option(min=1, help="Samples of lowest weight to show.")] = 20,
    to: Annotated[str, typer.Option(help="PNG file for their contact sheet.")] = "lowest.png",
) -> None:
    """Show the samples of lowest weight: a table and a PNG."""
    from cwerm.runs.inspection import inspect_run
    from cwerm.terminal import console

    console.answer({"file": to, "lowest": inspect_run(run, lowest, Path(to))})


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option(help="File: .parquet, .csv or .npy (weights by id).")],
) -> None:
    """Write a run's weights to a file."""
    from cwerm.runs.inspection import export_weights
    from cwerm.terminal import console

    console.answer({"file": str(to), "weights": export_weights(run, to)})
