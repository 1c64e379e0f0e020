"""The finished cells as Markdown, mean and spread over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from label_noise.records import read_all

__all__ = ["detection_tables", "gate_table", "markdown", "mean_of", "rate_table", "values_of"]

FIGURES = {
    "auroc": "AUROC of the quality",
    "found": "wrong labels among the lowest k, k their true number",
    "f1": "F1 of the flags",
    "precision": "precision of the flags",
    "recall": "recall of the flags",
    "suggestions": "share of wrong labels whose suggestion is right",
    "rate": "noise rate",
    "covered": "share of intervals that hold the true rate",
    "calibration": "expected calibration error",
    "opened": "share of draws with a weight other than 1",
    "seconds": "seconds (of all rows of a family together)",
}


def values_of(rows: dict[str, list[dict[str, Any]]], row: str, figure: str) -> list[float]:
    """The figure of a row over the seeds, where it has one."""
    found = [made[figure] for made in rows.get(row, [])]
    return [float(value) for value in found if value is not None]


def mean_of(rows: dict[str, list[dict[str, Any]]], row: str, figure: str) -> float | None:
    """Its mean, None without values."""
    values = values_of(rows, row, figure)
    return statistics.mean(values) if values else None


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table; the first column names the rows."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)])


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return ""
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def detection_tables(
    out: Path, data: str, given: str, cells: Sequence[str], seeds: list[int], only: Sequence[str]
) -> str:
    """One table a figure: rows are methods, columns cells."""
    made = {cell: read_all(out, "detect", data, cell, given, seeds) for cell in cells}
    rows = list(dict.fromkeys(row for found in made.values() for row in found))
    parts = []
    for figure, title in FIGURES.items():
        if only and figure not in only:
            continue
        body = []
        if figure == "rate":
            true = [_spread(_true_rates(made[cell]), 3) for cell in cells]
            body.append(["true rate", *true, ""])
        for row in rows:
            values = [values_of(made[cell], row, figure) for cell in cells]
            if not any(values):
                continue
            noisy = [v for cell, v in zip(cells, values, strict=True) if v and cell != "clean"]
            average = f"{statistics.mean(map(statistics.mean, noisy)):.3f}" if noisy else ""
            body.append([row, *(_spread(v, 3) for v in values), average])
        if body:
            head = ["", *cells, "mean of noisy cells"]
            number = max(len(found) for of_cell in made.values() for found in of_cell.values())
            parts.append(
                f"**{title}** ({data}, {_given(given)}, n = {number})\n\n" + markdown(head, body)
            )
    return "\n\n".join(parts)


def _true_rates(found: dict[str, list[dict[str, Any]]]) -> list[float]:
    return values_of(found, next(iter(found)), "true_rate") if found else []


def _given(given: str) -> str:
    return {"nothing": "nothing clean", "trusted": "100 trusted samples"}.get(given, given)


def rate_table(out: Path, cells: Sequence[tuple[str, str, str]], seeds: list[int]) -> str:
    """The noise rate's error and its interval's coverage; cells are (data, cell, given)."""
    body = []
    for data, cell, given in cells:
        for row, found in read_all(out, "rate", data, cell, given, seeds).items():
            true, rate = _column(found, "true_rate"), _column(found, "rate")
            if not rate:
                continue
            error = [r - t for r, t in zip(rate, true, strict=True)]
            covered = _column(found, "covered")
            width = [h - w for h, w in zip(_column(found, "high"), _column(found, "low"))]  # noqa: B905
            body.append(
                [
                    f"{data}, {cell}, {_given(given)}",
                    row,
                    f"{statistics.mean(true):.3f}",
                    _spread(rate, 3),
                    f"{max(error, key=abs):+.3f}",
                    f"{sum(covered):.0f} of {len(covered)}" if covered else "",
                    f"{statistics.mean(width):.3f}" if width else "",
                    _spread(_column(found, "calibration"), 3),
                ]
            )
    head = ["cell", "method", "true", "found", "largest error", "covered", "width", "calibration"]
    return "**Noise rate**\n\n" + markdown(head, body)


def _column(found: list[dict[str, Any]], figure: str) -> list[float]:
    return [float(made[figure]) for made in found if made[figure] is not None]


def gate_table(out: Path, cells: Sequence[tuple[str, str, str]]) -> str:
    """How many draws of right labels have any weight other than 1."""
    body = []
    for data, cell, given in cells:
        for row, found in read_all(out, "gate", data, cell, given).items():
            opened = _column(found, "opened")
            if not opened:
                continue
            body.append(
                [
                    f"{data}, {cell}",
                    row,
                    f"{sum(opened):.0f} of {len(opened)}",
                    _spread(_column(found, "rate"), 3),
                    _spread(_column(found, "flagged"), 3),
                ]
            )
    head = ["labels that are all right", "method", "opened", "noise rate", "share flagged"]
    return "**The gate**\n\n" + markdown(head, body)
