"""Label: the labels that were given -> ``labels`` and ``test_labels``, those in use.

Noise is made on purpose if asked for, of the training labels alone; then come a person's corrections.
"""

from __future__ import annotations

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
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Inputs, Settings, Stage, always
from cwerm.store.artifacts import Artifact

KEY = "data.corrections"


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
    test_of_source: bool = False
    """The test images lie in the source that the corrections are of."""

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
            digest, own_test = outside.corrections.digest, data.test is None
            found |= {"corrections": digest, "partial": left_out, "test_of_source": own_test}
        return cls(**found)


def _run(settings: LabelSettings, inputs: Inputs, context: Context) -> Artifact:
    """Write the labels in use, and beside them the true ones where noise was made.

    Raises:
        UserError: a class that the noise or the corrections leave without images, or corrections of images
            that there are not.
    """
    images, store, writer = inputs["ingest"], context.store, context.writer
    names = images.info["class_names"]
    given, tested = (
        common.column(store.read(images, table, ["label"]), "label")
        for table in ("given_labels", "given_test_labels")
    )
    used, clean = given, None
    if settings.noise is not None:
        used, clean = made_wrong(settings, names, given), given
    train, test = _as_given(used), _as_given(tested)
    info = {}
    if settings.corrections:
        train, test = _corrected(settings, images, context, used, tested)
        _check_enough(names, train, test)
        info = {"corrections": _counts(used, train, test)}
    columns = [clean, used, train.known, train.removed]
    tables = {
        "labels": common.table("labels", np.arange(len(used)), train.labels, *columns),
        "test_labels": common.table(
            "test_labels", np.arange(len(tested)), test.labels, test.removed
        ),
    }
    parts = {name: [writer.write_part(name, 0, table)] for name, table in tables.items()}
    return writer.commit(parts, info)


def made_wrong(settings: LabelSettings, names: list[str], labels: np.ndarray) -> np.ndarray:
    """Labels with noise, int32 [n].

    Raises:
        UserError: a class that the noise leaves without images.
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
    lost = np.setdiff1d(labels, noisy)
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
    settings: LabelSettings,
    images: Artifact,
    context: Context,
    used: np.ndarray,
    tested: np.ndarray,
) -> tuple[Corrected, Corrected]:
    """Training and test images after the corrections."""
    corrections = context.outside.corrections
    assert corrections, "the settings were made of them"

    def paths(table: str) -> list[str]:
        if not images.rows(table):
            return []
        return context.store.read(images, table, ["path"]).column("path").to_pylist()

    asked, labels = paths("images"), used
    if settings.test_of_source:
        asked, labels = asked + paths("test_images"), np.concatenate([used, tested])
    with blame(KEY):
        found, decided = corrections.apply(asked, labels, images.info["class_names"])
    if not settings.partial:
        check_paths(corrections.rows.keys() - decided - {*paths("rejects")}, KEY)
    train, test = (
        Corrected(*(a[some] for a in found)) for some in (slice(len(used)), slice(len(used), None))
    )
    return train, test if settings.test_of_source else _as_given(tested)


def _check_enough(names: list[str], train: Corrected, test: Corrected) -> None:
    left = np.bincount(train.labels[~train.removed], minlength=len(names))
    if not left.all():
        raise UserError(
            f"{KEY}: they leave class '{names[int(left.argmin())]}' without training images; keep some, or "
            "remove the class from the source"
        )
    if len(test.labels) and test.removed.all():
        raise UserError(f"{KEY}: they remove all test images; keep some")


def _counts(used: np.ndarray, train: Corrected, test: Corrected) -> dict[str, int]:
    relabelled = int((train.labels != used).sum())
    return {
        "confirmed": int(train.known.sum()) - relabelled,
        "relabelled": relabelled,
        "removed": int(train.removed.sum()),
        "of_test": int(test.known.sum()),
        "removed_test": int(test.removed.sum()),
    }


label = Stage("label", 3, always("ingest"), LabelSettings.of, _run, in_passing=True)
