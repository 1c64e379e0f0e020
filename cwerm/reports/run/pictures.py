"""Training images that the page of a run shows: those of lowest quality, and near-duplicates."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cwerm.errors import UserError
from cwerm.reports.run.samples import Samples
from cwerm.runs.summary import FinishedRun
from cwerm.suspects.duplicates import TEST, TRAINING, Duplicate, list_duplicates
from cwerm.suspects.thumbnails import thumbnails

LOWEST = 32
GROUPS, IN_GROUP = 20, 8  # of near-duplicates


@dataclass(frozen=True)
class Picture:
    """A training image as the page shows it."""

    path: str
    label: str
    suggested: str
    """"" where no other label looks likelier."""
    said: str
    """Its quality or weight in words."""
    image: str
    """WebP in Base64."""


def lowest_pictures(run: FinishedRun, samples: Samples) -> list[Picture]:
    """The samples of lowest quality, or else weight.

    Raises:
        UserError: the images are no longer in the store.
    """
    ids = samples.lowest[:LOWEST]
    store, images = run.artifact("images", "ingest")
    if images.rows("images") != len(samples.label):
        raise UserError(
            f"{run.folder}: weights.parquet is not that of its images; run the job again"
        )
    paths = store.read(images, "images", ["path"])["path"]
    pictures = thumbnails(store, images, sorted(ids.tolist()))
    names, quality = samples.names, samples.quality
    return [
        Picture(
            paths[i].as_py(),
            names[samples.label[i]],
            names[samples.suggested[i]] if samples.suspect[i] else "",
            f"weight {samples.weight[i]:.2g}"
            if quality is None
            else f"{100 * quality[i]:.{1 if quality[i] < 0.1 else 0}f} % likely right",
            base64.b64encode(pictures[i]).decode(),
        )
        for i in ids.tolist()
    ]


def duplicate_groups(run: FinishedRun, samples: Samples | None) -> dict[str, Any]:
    """Groups of images that are nearly the same, the first with their pictures.

    Raises:
        UserError: the images are no longer in the store.
    """
    store, images = run.artifact("images", "ingest")
    _, labels = run.artifact("labels", "label")
    table = samples.table if samples else None
    found = list_duplicates(store, images, labels, table)
    groups = [[*rows] for _, rows in groupby(found, lambda row: row.group)]
    shown = [rows[:IN_GROUP] for rows in groups[:GROUPS]]
    pictures: dict[int | str, bytes] = {}
    for split, name in ((TRAINING, "images"), (TEST, "test_images")):
        keys = {row.id: row.picture for rows in shown for row in rows if row.split == split}
        for number, made in thumbnails(store, images, sorted(keys), name).items():
            pictures[keys[number]] = made

    def picture(row: Duplicate) -> str:
        return base64.b64encode(pictures[row.picture]).decode()

    return {
        "images": len(found),
        "groups": len(groups),
        "across": sum(len({row.split for row in rows}) > 1 for rows in groups),
        "differ": sum(rows[0].labels_differ for rows in groups),
        "judged": table is not None and not table.column("duplicate_group").null_count,
        "shown": [[(row, picture(row)) for row in rows] for rows in shown],
        "sizes": [len(rows) for rows in groups[:GROUPS]],
    }
