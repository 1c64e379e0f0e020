"""Where the features of a run's training images lie: a plane of some of them."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np

from cwerm.algorithms.projection import on_a_plane
from cwerm.reports.run.samples import Samples
from cwerm.runs.summary import FinishedRun
from cwerm.stages import common

DRAWN = 1000  # samples at random
CORESET = 200  # of the coreset, in addition
LEAST = 10


@dataclass(frozen=True)
class FeatureMap:
    """The samples that are drawn, [m] each."""

    places: np.ndarray
    """[m, 2]."""
    colors: list[str]
    """By given label."""
    coreset: np.ndarray
    suspect: np.ndarray
    num_samples: int
    """Of which they are drawn."""
    legend: list[tuple[str, str]]
    """Class and colour, where each has one of its own."""


def read_map(run: FinishedRun, samples: Samples) -> FeatureMap | None:
    """That of a run with features; None where there are too few.

    Raises:
        UserError: the features are no longer in the store.
    """
    store, features = run.artifact("features", "extract")
    rows = features.rows("features")
    if rows != len(samples.label) or rows < LEAST:
        return None
    random = np.random.default_rng(0)
    drawn = random.permutation(rows)[:DRAWN]
    in_coreset = np.zeros(rows, bool)
    if "coreset" in run.summary["artifacts"]:
        _, selected = run.artifact("coreset", "select")
        ids = common.column(store.read(selected, "coreset", ["id"]), "id")
        if len(ids) <= rows / 2:  # else a ring around most of them shows nothing
            in_coreset[ids] = True
            drawn = np.concatenate([drawn, random.permutation(ids)[:CORESET]])
    drawn = np.unique(drawn[~samples.removed[drawn]])
    if len(drawn) < LEAST:
        return None
    vectors = np.stack(common.take_rows(store, features, "features", "feature", drawn))
    palette = _palette(len(samples.names))
    legend = [*zip(samples.names, palette, strict=True)] if len({*palette}) == len(palette) else []
    return FeatureMap(
        on_a_plane(vectors),
        [palette[label] for label in samples.label[drawn].tolist()],
        in_coreset[drawn],
        samples.suspect[drawn],
        rows,
        legend,
    )


def _palette(classes: int) -> list[str]:
    """A colour a class, of many classes some with the same."""
    kinds = 10 if classes <= 10 else 20
    colors = matplotlib.colormaps[f"tab{kinds}"]
    return [matplotlib.colors.to_hex(colors(i % kinds)) for i in range(classes)]
