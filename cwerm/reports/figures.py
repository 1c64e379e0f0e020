"""Figures of a sweep: its metric and its seconds, by what it varies."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cwerm.reports.comparison import SweepResults
from cwerm.reports.figure_style import (
    FAINT,
    INK,
    MARKERS,
    STYLE,
    grid,
    label_ends,
    legend,
    scale,
    style,
)
from cwerm.reports.panels import Panel, panels, varying
from cwerm.reports.points import PointResults

STAGES = {  # of Fig. 3: colour and hatch
    "select": ("#56B4E9", "////"),
    "reweight": ("#D55E00", "...."),
    "broadcast": ("#F0E442", "xxxx"),
    "train": ("#0072B2", ""),
}


@matplotlib.rc_context(STYLE)
def accuracy_by_ratio(sweep: SweepResults) -> Figure:
    """As the paper's Fig. 2: mean over the coreset ratio, a band of one standard deviation, each seed.

    What does not depend on the ratio, such as uniform weights (ERM), is a horizontal line.
    """
    factor, label = scale(sweep.metric)
    places = _varying(sweep, "data.")
    found, keys = panels(sweep, places), _others(sweep, [*places, "coreset.ratio"])
    styles = _styles(found, keys)
    beside = max(len(_uniform(name)) for name in styles) if len(found) == 1 else 0
    figure, axes = grid(len(found), min(len(found), 3), 4.4, 3.2, beside, shared=False)
    for panel, axis in zip(found, axes, strict=False):
        ends: list[tuple[str, float]] = []
        ratios = set()
        for name, points in panel.series(keys).items():
            curve = _by_ratio(points)
            if curve:
                ratios |= {point.settings["coreset.ratio"] for point in curve}
                _draw_curve(axis, name, curve, factor, styles[name])
            else:
                _draw_level(axis, name, points[0], factor, styles[name])
            ends.append((name, factor * (curve or points)[-1].mean))  # type: ignore[operator]
        axis.set_xscale("log")
        axis.set_xticks(sorted(ratios), [f"{100 * ratio:g}" for ratio in sorted(ratios)])
        axis.minorticks_off()
        axis.set(xlabel="coreset, % of the training images", title=panel.title)
        if len(found) == 1:
            label_ends(axis, [(_uniform(name), y) for name, y in ends])
    axes[0].set_ylabel(label)
    if len(found) > 1:
        legend(figure, _uniform)
    return figure


def _draw_curve(
    axis: Any, name: str, curve: list[PointResults], factor: float, look: dict[str, Any]
) -> None:
    ratios = [point.settings["coreset.ratio"] for point in curve]
    means, spread = _means_and_spreads(curve, factor)
    axis.fill_between(ratios, means - spread, means + spread, color=look["color"], alpha=0.18, lw=0)
    axis.plot(ratios, means, label=name, **look, ms=5, lw=1.6, mec="white", mew=0.6, zorder=3)
    for ratio, point in zip(ratios, curve, strict=True):
        seeds = factor * np.array([*point.scores.values()])
        axis.plot([ratio] * point.n, seeds, ".", color=look["color"], alpha=0.45, ms=4, mew=0)


def _draw_level(
    axis: Any,
    name: str,
    point: PointResults,
    factor: float,
    look: dict[str, Any],
    *,
    upright: bool = False,
) -> None:
    """A line across the axis at a point's mean, with a band of one standard deviation."""
    assert point.mean is not None
    mean, spread = factor * point.mean, factor * (point.deviation or 0.0)
    band, line = (axis.axvspan, axis.axvline) if upright else (axis.axhspan, axis.axhline)
    band(mean - spread, mean + spread, color=look["color"], alpha=0.12, lw=0)
    line(mean, label=name, color=look["color"], linestyle=look["linestyle"], lw=1.4)


@matplotlib.rc_context(STYLE)
def seconds_by_ratio(sweep: SweepResults) -> Figure:
    """Mean seconds of selection, reweighting, broadcast and training by ratio, as the paper's Fig. 3.

    The paper's bars have no broadcast of their own.
    """
    keys = _others(sweep, ["coreset.ratio"])
    every = panels(sweep, keys)
    found = [panel for panel in every if panel.point.relevant("coreset.ratio")]
    longest = max(point.seconds("total") or 0.0 for panel in found for point in panel.points)
    divisor, unit, short = (60, "minutes", "min") if longest > 600 else (1, "seconds", "s")
    figure, axes = grid(len(found), 2 if len(found) == 4 else min(len(found), 3), 4.6, 3.2)
    for panel, axis in zip(found, axes, strict=False):
        curve = _by_ratio(panel.points)
        below = np.zeros(len(curve))
        for stage, (color, hatch) in STAGES.items():
            heights = np.array([point.seconds(stage) or 0.0 for point in curve]) / divisor
            axis.bar(
                range(len(curve)), heights, 0.62, bottom=below, label=stage,
                color=color, hatch=hatch, edgecolor=INK, lw=0.6,
            )  # fmt: skip
            below += heights
        for place, total in enumerate(below):
            axis.annotate(
                f"{total:.3g}", (place, total), (0, 2), textcoords="offset points", ha="center"
            )
        labels = [f"{100 * point.settings['coreset.ratio']:g}" for point in curve]
        axis.set_xticks(range(len(curve)), labels)
        axis.margins(y=0.1)
        axis.set(xlabel="coreset, % of the training images", title=panel.title)
    axes[0].set_ylabel(f"{unit}, mean over seeds")
    legend(figure)
    extraction = [point.seconds("extract") for panel in found for point in panel.points]
    known = [seconds / divisor for seconds in extraction if seconds is not None]
    if known:
        figure.supxlabel(
            "Not shown: ingest, and the extraction of features, shared by all ratios "
            f"({np.mean(known):.3g} {short}).", fontsize=8, color="#555555",
        )  # fmt: skip
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_by_backbone(sweep: SweepResults) -> Figure:
    """Mean and standard deviation of each method by feature backbone; lines need no features."""
    factor, label = scale(sweep.metric)
    places = _varying(sweep, "data.", "train.")
    keys = _others(sweep, [*places, "features.backbone"])
    found = panels(sweep, places)
    names = [point.settings["features.backbone"] for point in sweep.points
             if point.n and point.relevant("features.backbone")]  # fmt: skip
    backbones = [*dict.fromkeys(names)]
    styles = _styles(found, keys)
    moved = [name for panel in found for name, points in panel.series(keys).items()
             if points[0].relevant("features.backbone")]  # fmt: skip
    offsets = _offsets([*dict.fromkeys(moved)])
    height = 0.9 + len(backbones) * max(0.45, 0.22 * len(offsets))
    figure, axes = grid(len(found), min(len(found), 3), 3.8, height, max(map(len, backbones)))
    for panel, axis in zip(found, axes, strict=False):
        for name, points in panel.series(keys).items():
            look = styles[name]
            if name not in offsets:
                _draw_level(axis, name, points[0], factor, look, upright=True)
                continue
            rows = [backbones.index(point.settings["features.backbone"]) for point in points]
            _draw_dots(axis, name, np.array(rows) + offsets[name], points, factor, look)
        axis.set_yticks(range(len(backbones)), backbones)
        axis.set_ylim(len(backbones) - 0.5, -0.5)
        for place in range(1, len(backbones)):
            axis.axhline(place - 0.5, color=FAINT, lw=0.4)
        axis.set(xlabel=label, title=panel.title)
    legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_by_setting(sweep: SweepResults) -> Figure:
    """Small multiples: a panel for each data set or training, a row with error bar for each method."""
    factor, label = scale(sweep.metric)
    places = _varying(sweep, "data.", "train.")
    if sweep.report == "table1":
        places.append("features.backbone")
    keys = _others(sweep, places)
    found = panels(sweep, places)
    styles = _styles(found, keys)
    names = [*styles]
    columns = min(len(found), 4)
    figure, axes = grid(len(found), columns, 2.4, 0.9 + 0.27 * len(names), max(map(len, names)))
    for panel, axis in zip(found, axes, strict=False):
        for name, point in panel.rows(keys).items():
            _draw_dots(axis, name, np.array([names.index(name)]), [point], factor, styles[name])
            if point.is_baseline and point.mean is not None:
                axis.axvline(factor * point.mean, color=FAINT, lw=0.8, ls=":")
        axis.set_yticks(range(len(names)), [name or sweep.name for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", color=FAINT, alpha=0.25, lw=0.5)
        axis.set_title(textwrap.fill(panel.title, 26))
    for axis in axes[-columns:]:
        axis.set_xlabel(label)
    return figure


def _draw_dots(
    axis: Any, name: str, rows: np.ndarray, points: Sequence[PointResults], factor: float,
    look: dict[str, Any],
) -> None:  # fmt: skip
    means, spread = _means_and_spreads(points, factor)
    axis.errorbar(
        means, rows, xerr=spread, label=name, color=look["color"], marker=look["marker"],
        linestyle="none", ms=6, mec=INK, mew=0.6, ecolor=INK, elinewidth=1, capsize=2.5, zorder=3,
    )  # fmt: skip
    for row, point in zip(rows, points, strict=True):
        seeds = factor * np.array([*point.scores.values()])
        axis.plot(seeds, [row + 0.17] * point.n, ".", color=FAINT, ms=3.5, mew=0, zorder=2)


def _means_and_spreads(
    points: Sequence[PointResults], factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each point; 0 for that of a single seed."""
    means = np.array([point.mean for point in points], dtype=float)
    return factor * means, factor * np.array([point.deviation or 0.0 for point in points])


def _by_ratio(points: Sequence[PointResults]) -> list[PointResults]:
    """The points to which the size of the coreset matters, the smallest first."""
    curve = [point for point in points if point.relevant("coreset.ratio")]
    return sorted(curve, key=lambda point: point.settings["coreset.ratio"])


def _varying(sweep: SweepResults, *sections: str) -> list[str]:
    return [key for key in varying(sweep) if key.startswith(sections)]


def _others(sweep: SweepResults, keys: Sequence[str]) -> list[str]:
    """The keys that names are made of: what varies, but for ``keys``; the method in any case."""
    return [key for key in dict.fromkeys(["method", *varying(sweep)]) if key not in keys]


def _styles(found: Sequence[Panel], keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A style for each name in any panel; plain training is black."""
    series = {name: points for panel in found for name, points in panel.series(keys).items()}
    plain = [name for name, points in series.items() if points[0].job["method"] == "erm"]
    colored = [name for name in series if name not in plain]
    styles = {name: style(position) for position, name in enumerate(colored)}
    black = {name: {**style(i), "color": INK, "marker": MARKERS[-1 - i % 2], "linestyle": ":"}
             for i, name in enumerate(plain)}  # fmt: skip
    return {name: (black | styles)[name] for name in series}


def _offsets(names: Sequence[str]) -> dict[str, float]:
    """Where in its row each series lies, so that none hides another."""
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    return dict(zip(names, np.linspace(-0.3, 0.3, len(names)).tolist(), strict=True))


def _uniform(name: str) -> str:
    return name.replace("ERM", "ERM (uniform weights)") if name.split(",")[0] == "ERM" else name
