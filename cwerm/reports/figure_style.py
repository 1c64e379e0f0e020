"""How figures look: colours, markers, line styles and hatches that also differ in grey."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from cwerm.suspects.fonts import fonts_for

# Okabe and Ito's colours, in an order in which neighbours differ in luminance, too
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (2, 1)))
INK, FAINT = "#222222", "#8a8a8a"
DPI = 150
WORD = 0.075  # inches a letter takes
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "cwerm",
}


def images(figure: Figure) -> dict[str, bytes]:
    """The figure as ``png`` (150 dpi) and ``svg``."""
    _set_fonts(figure)
    found = {}
    for kind, metadata in (("png", {}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # it is told
            figure.savefig(
                buffer, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.1, metadata=metadata
            )
        found[kind] = buffer.getvalue()
    return found


def _set_fonts(figure: Figure) -> None:
    """Fonts for the letters that the default one has not, as far as this machine has them."""
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    first, *others = fonts_for([text.get_text() for text in texts], "figure")
    for path in others:
        font_manager.fontManager.addfont(path)
    names = [font_manager.FontProperties(fname=path).get_name() for path in (first, *others)]
    for text in texts if others else ():
        text.set_fontfamily(names)


def scale(metric: str) -> tuple[float, str]:
    """The factor and the name with which a metric is shown: accuracies in percent."""
    name = metric.replace("_", " ").replace("auroc", "AUROC")
    return (100, f"{name}, %") if "accuracy" in metric else (1, name)


def style(position: int) -> dict[str, Any]:
    """Colour, marker and line style of the series at a position."""
    return {
        "color": COLORS[position % len(COLORS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": LINES[position % len(LINES)],
    }


def grid(
    count: int, columns: int, width: float, height: float, widest: int = 0, shared: bool = True
) -> tuple[Figure, list[Any]]:
    """A figure of so many panels, inches each, with ``widest`` letters beside them.

    ``shared``: with one vertical axis.
    """
    rows = -(-count // columns)
    size = columns * width + WORD * widest, rows * height
    figure = Figure(figsize=size, layout="constrained")
    axes = [*figure.subplots(rows, columns, squeeze=False, sharey=shared).flat]
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def legend(figure: Figure, renamed: Callable[[str], str] = str) -> None:
    """One legend above all panels, of what any of them shows."""
    found = {
        name: handle
        for axis in figure.axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [*found.values()], [*map(renamed, found)], loc="outside upper center",
        ncols=min(len(found), 4), frameon=False, handlelength=3.2, handleheight=1.4,
    )  # fmt: skip


def label_ends(axis: Any, ends: Sequence[tuple[str, float]]) -> None:
    """Names at the right of the axis, at the height where their lines end, none over another."""
    low, high = axis.get_ylim()
    gap = 0.065 * (high - low)
    ordered = sorted(ends, key=lambda end: end[1])
    heights: list[float] = []
    for _, y in ordered:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    shift = np.mean([h - y for h, (_, y) in zip(heights, ordered, strict=True)])
    for (name, y), height in zip(ordered, heights, strict=True):
        place = axis.get_yaxis_transform()
        axis.annotate(
            name, xy=(1.005, y), xytext=(1.05, height - shift), xycoords=place, textcoords=place,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.7, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip
