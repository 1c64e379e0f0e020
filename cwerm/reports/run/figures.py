"""Figures of one run. No class is named in them: names are text of the page, in any script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cwerm.reports.figure_style import COLORS, FAINT, INK, STYLE
from cwerm.reports.run.map import FeatureMap

SPLITS = {"train": "training", "validation": "validation", "test": "test"}
FLATTENED = 1 / 4  # of the axis, which all but the highest values have at least
HIGHEST = 0.1  # of the values, that may lie above the axis


@matplotlib.rc_context(STYLE)
def training_curve(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and accuracy of training, validation and test images over the epochs.

    Where a few high losses would flatten the others, the axis ends below them and says so.
    """
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    for axis, metric, factor in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
        shown: list[float] = []
        for position, split in enumerate(SPLITS):
            name = f"{split}_{metric}"
            known = [epoch for epoch in history if name in epoch]
            if not known:
                continue
            values = [factor * epoch[name] for epoch in known]
            epochs = [epoch["epoch"] + 1 for epoch in known]
            mark = "o" if position or len(known) == 1 else ""
            axis.plot(
                epochs, values, ("-", "-.", "--")[position], color=COLORS[(0, 2, 1)[position]],
                marker=mark, ms=3, label=SPLITS[split],
            )  # fmt: skip
            shown += values
        axis.set(xlabel="epoch", ylabel="accuracy, %" if factor == 100 else "loss")
        axis.locator_params(axis="x", integer=True)
        top = upper_end(shown) if metric == "loss" else None
        if top is not None:
            axis.set_ylim(top=top)
            axis.annotate(
                f"up to {max(shown):.3g}", (0.5, 1), xycoords="axes fraction", ha="center", va="bottom",
                color=FAINT, fontsize=8,
            )  # fmt: skip
        if shown:
            axis.legend(frameon=False)
    return figure


def upper_end(values: Sequence[float]) -> float | None:
    """Where an axis ends so that a few high values do not flatten the rest; None where they do not."""
    ordered = np.sort(np.asarray(values, float))
    kept = ordered[: len(ordered) - max(2, int(HIGHEST * len(ordered)))]
    if len(kept) < 3:
        return None
    span = kept[-1] - kept[0]
    if span <= 0 or span >= FLATTENED * (ordered[-1] - ordered[0]):
        return None
    return float(kept[-1] + 0.1 * span)


@matplotlib.rc_context(STYLE)
def weight_histogram(weights: np.ndarray) -> Figure:
    """How often each weight occurs."""
    figure = Figure(figsize=(6, 2.7), layout="constrained")
    axis = figure.subplots()
    axis.hist(weights, bins=50, color=COLORS[0], edgecolor="white", lw=0.3)
    axis.axvline(1, color=INK, ls=":", lw=1)
    axis.set(xlabel="weight", ylabel="samples")
    return figure


@matplotlib.rc_context(STYLE)
def reliability(rows: Sequence[tuple[int, float, float]], said: str, right: str) -> Figure:
    """The share of right ones by what was said, over how many samples each says it of."""
    counts, means, shares = (np.array(column, float) for column in zip(*rows, strict=True))
    figure = Figure(figsize=(3.6, 4), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], color=FAINT, ls="--", lw=1)
    # by chance, a share of few samples is as far away as its error bar is long
    spread = 1.96 * np.sqrt(np.maximum(means * (1 - means), 1e-4) / counts)
    axis.errorbar(
        means, shares, yerr=spread, color=COLORS[0], marker="o", ms=4, lw=1, ecolor=COLORS[5], elinewidth=1,
    )  # fmt: skip
    axis.set(ylabel=right, xlim=(0, 1), ylim=(-0.03, 1.03))
    below.bar(means, counts, 0.045, color=COLORS[0])
    below.set(xlabel=said, ylabel="samples")
    below.locator_params(axis="y", nbins=3)
    return figure


@matplotlib.rc_context(STYLE)
def feature_map(drawn: FeatureMap) -> Figure:
    """The samples on a plane by their features, with coreset and suspects marked, as the paper's Fig. 1."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axis = figure.subplots()
    x, y = drawn.places.T
    axis.scatter(x, y, 9, c=drawn.colors, lw=0, alpha=0.75, rasterized=True)
    rings = drawn.coreset
    if rings.any():
        axis.scatter(
            x[rings], y[rings], 34, facecolors="none", edgecolors=INK, lw=0.8, label="coreset"
        )
    marked = drawn.suspect
    if marked.any():
        axis.scatter(x[marked], y[marked], 22, c="#d00000", marker="x", lw=0.9, label="suspect")
    if rings.any() or marked.any():
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    axis.set_axis_off()
    return figure
