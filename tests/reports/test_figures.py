"""Figures of sweeps: what is drawn, and whether it can be told apart."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from cwerm.reports import figure_style, figures
from cwerm.reports.comparison import read_sweep
from cwerm.sweeps.results import SCHEMA
from reports.made_up import (
    KEYS,
    KINDS,
    RATIOS,
    a_description,
    a_row,
    scores_of,
    sweep_of,
)


def test_the_lines_of_figure_2_are_the_means() -> None:
    rows = KINDS["ratio"][0]
    (axis,) = figures.accuracy_by_ratio(sweep_of("ratio")).axes
    curves = {line.get_label(): line for line in axis.get_lines() if line.get_label()[0] != "_"}
    assert [*curves] == ["ERM", "CW-ERM, coreset moderate", "CW-ERM, coreset random"]
    assert axis.get_xscale() == "log"
    for method in ("moderate", "random"):
        line = curves[f"CW-ERM, coreset {method}"]
        means = [scores_of(rows, method="cw-erm", coreset=method, ratio=r).mean() for r in RATIOS]
        np.testing.assert_allclose(line.get_xdata(), RATIOS)
        np.testing.assert_allclose(line.get_ydata(), means)
    plain = scores_of(rows, method="erm").mean()
    np.testing.assert_allclose(curves["ERM"].get_ydata(), [plain, plain])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "1", "10"]
    looks = {(line.get_linestyle(), line.get_marker()) for line in curves.values()}
    assert len(looks) == 3


def test_the_bars_of_figure_3_are_the_mean_seconds() -> None:
    first, second = figures.seconds_by_ratio(sweep_of("ratio")).axes
    rows = KINDS["ratio"][0]
    for axis, method, last in ((first, "moderate", 3), (second, "random", 2)):
        assert axis.get_title() == f"CW-ERM, coreset {method}"
        bars = {bar.get_label(): bar for bar in axis.containers}
        assert [*bars] == ["select", "reweight", "broadcast", "train"]
        below = np.zeros(len(RATIOS))
        for stage, container in bars.items():
            for place, ratio in enumerate(RATIOS):
                seconds = [
                    row[f"seconds_{stage}"]
                    for row in rows
                    if f"-{method}-{ratio}-" in row["trial"] and row["status"] == "done"
                ]
                assert len(seconds) == (last if ratio == 0.1 else 3)
                assert container[place].get_height() == pytest.approx(np.mean(seconds))
                assert container[place].get_y() == pytest.approx(below[place])
                below[place] += np.mean(seconds)


def luminance(color: Any) -> float:
    return float(np.dot(to_rgb(color), (0.299, 0.587, 0.114)))


def test_stages_differ_in_grey_and_in_hatch() -> None:
    colors, hatches = zip(*figures.STAGES.values(), strict=True)
    greys = sorted(map(luminance, colors))
    assert min(np.diff(greys)) > 0.1
    assert len(set(hatches)) == len(hatches)
    axis = figures.seconds_by_ratio(sweep_of("ratio")).axes[0]
    drawn = [(bars[0].get_facecolor()[:3], bars[0].get_hatch() or "") for bars in axis.containers]
    assert drawn == [(to_rgb(color), hatch) for color, hatch in figures.STAGES.values()]


def test_series_differ_without_colour() -> None:
    styles = [figure_style.style(position) for position in range(6)]
    for key in ("color", "marker", "linestyle"):
        assert len({str(style[key]) for style in styles}) == 6
    greys = [luminance(style["color"]) for style in styles]
    assert min(abs(np.diff(greys))) > 0.1
    assert all(abs(grey - luminance(figure_style.INK)) > 0.15 for grey in greys)


def texts(figure: Figure) -> list[Any]:
    figure.draw_without_rendering()
    axes_texts = [text for axis in figure.axes for text in axis.texts]
    return [text for text in axes_texts if text.get_text()]


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    rows = [
        a_row({"coreset.method": method, "coreset.ratio": ratio}, 0, 0.9 + ratio)
        for method in ("moderate", "random", "herding", "k_center")
        for ratio in RATIOS
    ]
    sweep = read_sweep(a_description(KEYS, "ratio"), pa.Table.from_pylist(rows, SCHEMA))
    labels = texts(figures.accuracy_by_ratio(sweep))
    assert len(labels) == 4
    boxes = [Text.get_window_extent(label) for label in labels]  # without their arrows
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_legend_has_what_only_a_later_panel_shows() -> None:
    rows = [
        a_row({"method": "cw-erm", "data.source": source, "coreset.ratio": ratio}, 0, 0.9)
        for source in ("cifar10", "cifar100")
        for ratio in RATIOS
    ]
    rows.append(a_row({"method": "erm", "data.source": "cifar100"}, 0, 0.8))
    keys = ["method", "data.source", "coreset.ratio"]
    sweep = read_sweep(a_description(keys, "ratio"), pa.Table.from_pylist(rows, SCHEMA))
    drawn = figures.accuracy_by_ratio(sweep)
    (legend,) = drawn.legends
    assert [t.get_text() for t in legend.get_texts()] == ["CW-ERM", "ERM (uniform weights)"]
    first, second = drawn.axes
    assert first.get_ylim() != second.get_ylim()


def test_plain_training_is_a_line_across_all_backbones() -> None:
    (axis,) = figures.accuracy_by_backbone(sweep_of("backbones")).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["tf_efficientnet_lite0", "vit_small_patch14_dinov2.lvd142m"]
    mean = np.mean([100 * row["test_accuracy"] for row in KINDS["backbones"][0][:3]])
    (line,) = [line for line in axis.get_lines() if line.get_label() == "ERM"]
    np.testing.assert_allclose(line.get_xdata(), [mean, mean])
    rows = {bar.get_label(): bar[0].get_ydata() for bar in axis.containers}
    assert not set(rows["W-ERM"]) & set(rows["CW-ERM"])


def test_a_panel_for_each_data_set() -> None:
    drawn = figures.accuracy_by_setting(sweep_of("robustness"))
    titles = [axis.get_title() for axis in drawn.axes]
    assert titles == ["clean", "40 % symmetric", "40 % flip", "long tail 1/50"]
    assert [len(axis.containers) for axis in drawn.axes] == [3, 3, 3, 3]


def test_figures_are_the_same_each_time() -> None:
    first, second = (
        figure_style.images(figures.accuracy_by_ratio(sweep_of("ratio"))) for _ in range(2)
    )
    assert first == second
