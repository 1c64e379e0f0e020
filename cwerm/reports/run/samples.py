"""The training samples of a run as its weights have them, and what is told of them by class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cwerm.algorithms.reliability import reliability_bins, reliability_rows
from cwerm.errors import UserError
from cwerm.runs.folder import load_weights
from cwerm.runs.summary import FinishedRun
from cwerm.stages import common
from cwerm.suspects.noise_matrix import NoiseMatrix, noise_matrix

if TYPE_CHECKING:
    import pyarrow as pa

BOX = (5, 25, 50, 75, 95)  # percentiles


@dataclass(frozen=True)
class Samples:
    """Columns by id, [n] each."""

    names: list[str]
    table: pa.Table
    """``weights``, by id."""
    label: np.ndarray
    weight: np.ndarray
    quality: np.ndarray | None
    """The probability that each label is right; None where nothing judges labels."""
    suggested: np.ndarray
    """What looks likelier; the label itself where nothing does, or nothing judges."""
    removed: np.ndarray
    """What a person wants to have left out, bool."""
    clean: np.ndarray | None
    """True labels where noise was made of them."""

    @property
    def suspect(self) -> np.ndarray:
        """Whether another label is suggested, bool [n]."""
        return (self.suggested != self.label) & ~self.removed

    @property
    def lowest(self) -> np.ndarray:
        """Ids of what is used, the lowest quality first, or where nothing judges the lowest weight."""
        by = self.weight if self.quality is None else self.quality
        order = np.lexsort((np.arange(len(by)), self.weight, by))
        return order[~self.removed[order]]

    def matrix(self) -> NoiseMatrix:
        """Suspects by given and suggested class."""
        pairs = zip(self.label[self.suspect], self.suggested[self.suspect], strict=True)
        found = Counter((self.names[given], self.names[other]) for given, other in pairs)
        right = np.bincount(self.label[~self.suspect & ~self.removed], minlength=len(self.names))
        return noise_matrix(self.names, found, dict(zip(self.names, right.tolist(), strict=True)))

    def reliability(self) -> list[tuple[int, float, float]] | None:
        """How often labels of each quality are right, where that is known."""
        if self.quality is None or self.clean is None:
            return None
        used = ~self.removed
        right = self.clean[used] == self.label[used]
        return reliability_rows(reliability_bins(self.quality[used], right))


def read_samples(run: FinishedRun) -> Samples:
    """Those of a finished run with weights.

    Raises:
        UserError: the folder holds no weights, or damaged ones.
    """
    table, names = load_weights(run.folder).sort_by("id"), run.summary["class_names"]
    label, weight = common.column(table, "label"), common.column(table, "weight")
    quality, suggested = None, label
    if not (table.column("quality").null_count or table.column("suggested_label").null_count):
        quality = common.column(table, "quality")
        suggested = common.column(table, "suggested_label")
    for numbers in (label, suggested):
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise UserError(
                f"{run.folder}: weights.parquet is not that of its classes; run the job again"
            )
    removed, clean = np.zeros(len(label), bool), None
    try:
        store, labels = run.artifact("labels", "label")
    except UserError:
        pass  # nobody has removed or made wrong what is not there
    else:
        removed = common.removed_of(store, labels)
        clean = common.clean_labels_of(store, labels)
    return Samples(names, table, label, weight, quality, suggested, removed, clean)


@dataclass(frozen=True)
class ClassRow:
    """What is told of one class."""

    name: str
    accuracy: float | None
    """On test images, None where there are none."""
    images: int | None = None
    """Of training; None where no weights are known, as below."""
    suspects: int | None = None
    weight: float | None = None
    """Mean."""
    box: tuple[float, ...] | None = None
    """Percentiles 5, 25, 50, 75 and 95 of the weights, in percent of the axis."""


def class_rows(
    accuracy: dict[str, float | None], samples: Samples | None
) -> tuple[list[ClassRow], float]:
    """All classes, the lowest test accuracy first, and the weight at which the axis of the boxes ends."""
    found: list[ClassRow] = []
    boxes: dict[str, Any] = {}
    if samples is not None:
        order = np.argsort(samples.label, kind="stable")
        ends = np.cumsum(np.bincount(samples.label, minlength=len(samples.names)))
        for name, ids in zip(samples.names, np.split(order, ends[:-1]), strict=True):
            boxes[name] = ids[~samples.removed[ids]]
    weights = {
        name: np.percentile(samples.weight[ids], BOX)
        for name, ids in boxes.items()
        if len(ids) and samples
    }
    end = 1.05 * max((float(box[-1]) for box in weights.values()), default=1.0) or 1.0
    for name, share in accuracy.items():
        if samples is None:
            found.append(ClassRow(name, share))
            continue
        ids = boxes[name]
        suspects = int(samples.suspect[ids].sum()) if samples.quality is not None else None
        mean = float(samples.weight[ids].mean()) if len(ids) else None
        box = tuple((100 * weights[name] / end).tolist()) if name in weights else None
        found.append(ClassRow(name, share, len(ids), suspects, mean, box))
    found.sort(key=lambda row: (row.accuracy is None, row.accuracy or 0.0))
    return found, end
