"""What people do with the weights of a run: look at the lowest, take them elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cwerm.errors import UserError
from cwerm.runs.files import write_file
from cwerm.runs.folder import load_weights
from cwerm.runs.summary import FinishedRun
from cwerm.store.artifacts import Artifact
from cwerm.suspects.contact_sheet import contact_sheet
from cwerm.terminal import console

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".npy")


def export_weights(run: str, target: Path) -> int:
    """Write the weights to ``target``: .parquet or .csv (all columns), .npy (float32, by id); their number.

    Paths and names of classes stand beside the numbers, the lowest quality first.

    Raises:
        UserError: the run has no weights, the suffix is unknown, or the file can't be written.
    """
    import pyarrow.csv
    import pyarrow.parquet

    if target.suffix not in SUFFIXES:
        raise UserError(f"--to: '{target}' should end in {', '.join(SUFFIXES[:-1])} or .npy")
    table = load_weights(run)
    if target.suffix != ".npy":
        table = _worst_first(_with_words(run, table))
    buffer = io.BytesIO()
    if target.suffix == ".parquet":
        pyarrow.parquet.write_table(table, buffer)
    elif target.suffix == ".csv":
        pyarrow.csv.write_csv(table, buffer)
    else:
        weights = np.empty(len(table), dtype=np.float32)
        weights[table.column("id").to_numpy()] = table.column("weight").to_numpy()
        np.save(buffer, weights)
    write_file(target, buffer.getvalue())
    console.out.print(f"{len(table):,} weights in {target}", soft_wrap=True, markup=False)
    return len(table)


def _worst_first(table: pa.Table) -> pa.Table:
    """Lowest quality first; where nothing judges labels, lowest weight first."""
    return table.sort_by([(name, "ascending") for name in ("quality", "weight", "id")])


def _with_words(run: str, table: pa.Table) -> pa.Table:
    """The table with each sample's path and the names of its classes, where its images are known."""
    import pyarrow as pa

    try:
        store, images = FinishedRun(run).artifact("images", "ingest")
    except UserError as error:
        console.note(f"paths and names of classes are left out: {error}")
        return table
    names = pa.array(images.info["class_names"], pa.string())
    _check_weights(run, table, images)
    paths = store.read(images, "images", ["path"]).column("path").combine_chunks()
    table = table.append_column("label_name", names.take(table.column("label").combine_chunks()))
    suggested = table.column("suggested_label").combine_chunks()
    table = table.append_column("suggested_name", names.take(suggested))
    return table.append_column("path", paths.take(table.column("id").combine_chunks()))


def _check_weights(run: str, table: pa.Table, images: Artifact) -> None:
    """Raise `UserError` for weights of other images."""
    import pyarrow.compute as pc

    bounds = [
        value.as_py()
        for name in ("label", "neighbor_label", "suggested_label")
        for value in pc.min_max(table.column(name)).values()
        if value.is_valid
    ]
    fits = min(bounds) >= 0 and max(bounds) < len(images.info["class_names"])
    if len(table) > images.rows("images") or not fits:
        raise UserError(f"{run}: weights.parquet is not that of its images; run the job again")


def inspect_run(run: str, lowest: int, target: Path) -> list[dict[str, Any]]:
    """Print the samples of lowest quality, or else weight, and write their contact sheet as PNG.

    Returns:
        The samples: columns of the weights, and path.

    Raises:
        UserError: the run has no weights, its images are gone, or the file can't be written.
    """
    from cwerm.stages import common

    if target.suffix.lower() != ".png":
        raise UserError(f"--to: '{target}' should end in .png")
    weights = _worst_first(load_weights(run))
    store, images = FinishedRun(run).artifact("images", "ingest")
    _check_weights(run, weights, images)
    names = images.info["class_names"]
    rows = weights.slice(0, lowest).to_pylist()
    ids = np.array([row["id"] for row in rows])
    paths = common.take_rows(store, images, "images", "path", ids)
    judged = rows[0]["quality"] is not None
    what = "labels, by the probability that they are right" if judged else "weights"
    console.out.print(_table(f"lowest {len(rows)} of {len(weights):,} {what}", rows, paths, names))
    captions = [_caption(row, names) for row in rows]
    sheet = contact_sheet(
        common.take_rows(store, images, "images", "image", ids), captions, target.name
    )
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_file(target, buffer.getvalue())
    console.out.print(f"contact sheet in {target}", soft_wrap=True, markup=False)
    return [{**row, "path": path} for row, path in zip(rows, paths, strict=True)]


def _table(title: str, rows: list[dict[str, Any]], paths: list[str], names: list[str]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    judged = rows[0]["quality"] is not None
    about = ("suggested", "with", "quality") if judged else ("neighbour's label", "distance")
    for heading in ("id", "label", *about, "weight"):
        numeric = heading in ("id", "with", "quality", "weight", "distance")
        table.add_column(heading, justify="right" if numeric else "left")
    table.add_column("path", overflow="fold")
    for row, path in zip(rows, paths, strict=True):
        if judged:
            found = [
                escape(names[row["suggested_label"]]),
                f"{100 * row['suggestion_probability']:.0f}%",
                f"{row['quality']:.4f}",
            ]
        else:
            found = [escape(names[row["neighbor_label"]]), f"{row['neighbor_distance']:.3f}"]
        label, weight = escape(names[row["label"]]), f"{row['weight']:.4f}"
        table.add_row(str(row["id"]), label, *found, weight, escape(path))
    return table


def _caption(row: dict[str, Any], names: list[str]) -> tuple[str, str]:
    """Two lines below an image: what its label is, and what it should be."""
    label = names[row["label"]]
    if row["quality"] is None:
        return f"{row['id']}   {row['weight']:.4f}", label
    return f"{row['id']}   {label}", f"→ {names[row['suggested_label']]}?"
