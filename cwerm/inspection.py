"""What people do with the weights of a run: look at the lowest, take them elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from cwerm import console
from cwerm.artifacts import Artifact, ArtifactStore
from cwerm.config import parse_job
from cwerm.errors import UserError
from cwerm.runs import load_summary, load_weights
from cwerm.storage import open_storage

TILE = 96  # pixels of one image on the contact sheet
COLUMNS = 10


def export_weights(run: str, target: Path) -> None:
    """Write the weights to ``target``: .parquet or .csv (all columns), .npy (float32, by id).

    Raises:
        UserError: the run has no weights, or the suffix is unknown.
    """
    import pyarrow.csv
    import pyarrow.parquet

    table = load_weights(run)
    buffer = io.BytesIO()
    if target.suffix == ".parquet":
        pyarrow.parquet.write_table(table, buffer)
    elif target.suffix == ".csv":
        pyarrow.csv.write_csv(table, buffer)
    elif target.suffix == ".npy":
        weights = np.empty(len(table), dtype=np.float32)
        weights[table.column("id").to_numpy()] = table.column("weight").to_numpy()
        np.save(buffer, weights)
    else:
        raise UserError(f"--to: '{target}' should end in .parquet, .csv or .npy")
    _write(target, buffer.getvalue())
    console.out.print(f"{len(table):,} weights in {target}", soft_wrap=True)


def inspect_run(run: str, lowest: int, target: Path) -> None:
    """Print the samples of lowest weight and write their contact sheet as PNG."""
    from rich.table import Table

    from cwerm.stages import common

    store, images = _images_of(run)
    names = images.info["class_names"]
    weights = load_weights(run).sort_by([("weight", "ascending"), ("id", "ascending")])
    rows = weights.slice(0, lowest).to_pylist()
    ids = np.array([row["id"] for row in rows])
    paths = common.take_rows(store, images, "images", "path", ids)
    table = Table(title=f"lowest {len(rows)} of {len(weights):,} weights")
    for heading in ("id", "weight", "label", "neighbour's label", "distance", "path"):
        table.add_column(heading)
    for row, path in zip(rows, paths, strict=True):
        table.add_row(
            str(row["id"]),
            f"{row['weight']:.4f}",
            names[row["label"]],
            names[row["neighbor_label"]],
            f"{row['neighbor_distance']:.3f}",
            path,
        )
    console.out.print(table)
    captions = [f"{row['id']}: {names[row['label']]}" for row in rows]
    sheet = _contact_sheet(common.take_rows(store, images, "images", "image", ids), captions)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    _write(target, buffer.getvalue())
    console.out.print(f"contact sheet in {target}", soft_wrap=True)


def _images_of(run: str) -> tuple[ArtifactStore, Artifact]:
    """The store of a run and the images it was made from."""
    import yaml

    from cwerm.stages import ingest

    load_summary(run)
    storage = open_storage(run)
    job = parse_job(yaml.safe_load(storage.read_bytes("job.yaml")))
    store = ArtifactStore(open_storage(storage.root.rpartition("/runs/")[0]))
    artifact = store.find(ingest.NAME, ingest.key(job, store))
    if artifact is None:
        raise UserError(f"{run}: its images are no longer in the store; run the job again")
    return store, artifact


def _contact_sheet(images: list[Any], captions: list[str]) -> Any:
    from PIL import Image, ImageDraw

    from cwerm.data.images import decode
    from cwerm.stages.pixels import to_square

    caption_height = 14
    lines = -(-len(images) // COLUMNS)
    size = (COLUMNS * TILE, lines * (TILE + caption_height))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = position % COLUMNS * TILE, position // COLUMNS * (TILE + caption_height)
        sheet.paste(Image.fromarray(to_square(decode(image), TILE)), (left, top))
        draw.text((left + 2, top + TILE), caption[:15], fill="black")
    return sheet


def _write(target: Path, data: bytes) -> None:
    try:
        target.write_bytes(data)
    except OSError as error:
        raise UserError(f"--to: '{target}' can't be written ({error.strerror})") from None
