"""Label: the labels that were given -> ``labels``, ``validation_labels`` and ``test_labels``, those in use.

Noise is made on purpose if asked for, of the training labels and those of validation images that were drawn
from the same: nobody has checked these either. Then come a person's corrections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from cwerm.algorithms.noise.confusion import (
    confuse_by_table,
    confusion_matrix,
    scale_confusions,
)
from cwerm.algorithms.noise.corrupt import corrupt_labels
from cwerm.data.corrections import Corrected, check_paths
from cwerm.errors import UserError, blame
from cwerm.job.tree import Job
from cwerm.stages import common
from cwerm.stages.labels_in_use import ROWS_A_PART
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Inputs, Settings, Stage, always
from cwerm.store.artifacts import Artifact, ArtifactStore, File

KEY = "data.corrections"
LABELS = {  # as the source has them, by the images that they are of
    "images": "given_labels",
    "validation_images": "given_validation_labels",
    "test_images": "given_test_labels",
}


class LabelSettings(Settings):
    """What becomes of the given labels: nothing, where nothing is named."""

    noise: Literal["uniform", "symmetric", "flip", "flip2", "confusion"] | None = None
    noise_rate: float = 0.0
    confusions: dict[str, dict[str, float]] | None = None
    """By class, how often it is taken for which others."""
    seed: int = 0
    corrections: str | None = None
    """A digest of them."""
    partial: bool = False
    """Corrections may be of images that the job leaves out."""
    of_source: tuple[str, ...] = ()
    """The tables of images in the source that the corrections are of."""

    @classmethod
    def of(cls, job: Job, outside: Outside) -> LabelSettings:
        """Those of this job."""
        data = job.data
        found: dict[str, Any] = {}
        if data.noise != "none":
            found = {"noise": data.noise, "noise_rate": data.noise_rate, "seed": data.split_seed}
            found["confusions"] = outside.confusions
        if outside.corrections:
            left_out = data.limit is not None or data.imbalance > 1
            others = {"test_images": data.test, "validation_images": data.validation}
            own = ("images", *(table for table, source in others.items() if source is None))
            digest = outside.corrections.digest
            found |= {"corrections": digest, "partial": left_out, "of_source": own}
        return cls(**found)


def _run(settings: LabelSettings, inputs: Inputs, context: Context) -> Artifact:
    """Write the labels in use, and beside them the true ones where noise was made.

    Raises:
        UserError: a class that the noise or the corrections leave without images, or corrections of images
            that there are not.
    """
    images, store, writer = inputs["ingest"], context.store, context.writer
    names = images.info["class_names"]
    as_given = settings.noise is None and not settings.corrections
    given = {
        table: common.column(store.read(images, source, ["label"]), "label")
        for table, source in LABELS.items()
        if source in images.tables and not (as_given and table == "images")
    }
    used, clean = {**given}, None
    info: dict[str, Any] = {}
    if settings.noise is not None:
        clean = given["images"]
        noisy = [table for table in ("images", "validation_images") if table in given]
        noisy = [table for table in noisy if table == "images" or table in images.info["drawn"]]
        ends = np.cumsum([len(given[table]) for table in noisy])[:-1]
        every = np.concatenate([given[table] for table in noisy])
        wrong = np.split(made_wrong(settings, names, every, len(clean)), ends)
        used |= dict(zip(noisy, wrong, strict=True))
        if "validation_images" in noisy:
            changed = used["validation_images"] != given["validation_images"]
            info["wrong_validation_labels"] = int(changed.sum())
    after = {table: _as_given(labels) for table, labels in used.items()}
    if settings.corrections:
        after = _corrected(settings, images, context, used)
        _check_enough(names, after)
        info["corrections"] = _counts(used, after)
    pieces: Iterator[Piece]
    if as_given:
        pieces = ((None, labels, _as_given(labels)) for labels in _given_parts(store, images))
    else:
        pieces = _pieces(clean, used["images"], after.pop("images"))
    parts: dict[str, list[File]] = {"labels": []}
    start = 0
    for number, (right, before, now) in enumerate(pieces):
        ids = np.arange(start, start := start + len(before))
        columns = [ids, now.labels, right, before, now.known, now.removed]
        table = common.table("labels", *columns)
        parts["labels"].append(writer.write_part("labels", number, table))
    for split, held_out in after.items():
        name = LABELS[split].removeprefix("given_")
        ids = np.arange(len(held_out.labels))
        table = common.table(name, ids, held_out.labels, held_out.known, held_out.removed)
        parts[name] = [writer.write_part(name, 0, table)]
    return writer.commit(parts, info)


def _given_parts(store: ArtifactStore, images: Artifact) -> Iterator[np.ndarray]:
    """The training images' labels, as many at a time as a part of the labels in use has."""
    held: list[np.ndarray] = []
    parts = range(len(images.tables["given_labels"]))
    for table in store.read_parts(images, "given_labels", parts, ["label"]):
        held.append(common.column(table, "label"))
        if sum(map(len, held)) >= ROWS_A_PART:
            labels = np.concatenate(held)
            while len(labels) >= ROWS_A_PART:
                yield labels[:ROWS_A_PART]
                labels = labels[ROWS_A_PART:]
            held = [labels]
    left = np.concatenate(held)
    if len(left) or images.rows("given_labels") == 0:
        yield left


# right labels, those before corrections, and after
Piece = tuple[np.ndarray | None, np.ndarray, Corrected]


def _pieces(clean: np.ndarray | None, before: np.ndarray, after: Corrected) -> Iterator[Piece]:
    """The same of labels that all are here."""
    for start in range(0, max(1, len(before)), ROWS_A_PART):
        rows = slice(start, start + ROWS_A_PART)
        right = None if clean is None else clean[rows]
        yield right, before[rows], Corrected(*(column[rows] for column in after))


def made_wrong(
    settings: LabelSettings, names: list[str], labels: np.ndarray, of_training: int | None = None
) -> np.ndarray:
    """Labels with noise, int32 [n]; the first ``of_training``, or all, are of training images.

    Raises:
        UserError: a class that the noise leaves without training images.
    """
    assert settings.noise, "without a kind of noise there is none"
    rate, seed = settings.noise_rate, settings.seed
    if settings.confusions is not None:
        with blame("data.confusions"):
            matrix = confusion_matrix(settings.confusions, names)
        with blame("data.noise_rate", names):
            noisy = confuse_by_table(labels, scale_confusions(matrix, labels, rate), seed)
    else:
        with blame("data.noise", names):
            noisy = corrupt_labels(labels, settings.noise, rate, len(names), seed)
    lost = np.setdiff1d(labels, noisy[:of_training])
    if len(lost):
        raise UserError(
            f"data.noise_rate: at {rate:g} no training image keeps or gets the label "
            f"'{names[lost[0]]}'; lower the rate or use more images"
        )
    return noisy


def _as_given(labels: np.ndarray) -> Corrected:
    no = np.zeros(len(labels), bool)
    return Corrected(labels, no, no)


def _corrected(
    settings: LabelSettings, images: Artifact, context: Context, used: dict[str, np.ndarray]
) -> dict[str, Corrected]:
    """The images of each table after the corrections."""
    corrections = context.outside.corrections
    assert corrections, "the settings were made of them"

    def paths(table: str) -> list[str]:
        if not images.rows(table):
            return []
        return context.store.read(images, table, ["path"]).column("path").to_pylist()

    own = [table for table in settings.of_source if table in used]
    asked = [path for table in own for path in paths(table)]
    with blame(KEY):
        found, decided = corrections.apply(
            asked, np.concatenate([used[table] for table in own]), images.info["class_names"]
        )
    if not settings.partial:
        check_paths(corrections.rows.keys() - decided - {*paths("rejects")}, KEY)
    ends = np.cumsum([len(used[table]) for table in own])[:-1]
    parts = zip(*(np.split(values, ends) for values in found), strict=True)
    after = {table: Corrected(*part) for table, part in zip(own, parts, strict=True)}
    return {table: after.get(table) or _as_given(labels) for table, labels in used.items()}


def _check_enough(names: list[str], after: dict[str, Corrected]) -> None:
    train = after["images"]
    left = np.bincount(train.labels[~train.removed], minlength=len(names))
    if not left.all():
        raise UserError(
            f"{KEY}: they leave class '{names[int(left.argmin())]}' without training images; keep some, or "
            "remove the class from the source"
        )
    for table, split in after.items():
        if len(split.labels) and split.removed.all():
            raise UserError(f"{KEY}: they remove all {table.replace('_', ' ')}; keep some")


def _counts(used: dict[str, np.ndarray], after: dict[str, Corrected]) -> dict[str, int]:
    train = after["images"]
    relabelled = int((train.labels != used["images"]).sum())
    counts = {
        "confirmed": int(train.known.sum()) - relabelled,
        "relabelled": relabelled,
        "removed": int(train.removed.sum()),
    }
    for split in ("validation", "test"):
        if found := after.get(f"{split}_images"):
            counts |= {
                f"of_{split}": int(found.known.sum()),
                f"removed_{split}": int(found.removed.sum()),
            }
    return counts


label = Stage("label", 4, always("ingest"), LabelSettings.of, _run, in_passing=True)
