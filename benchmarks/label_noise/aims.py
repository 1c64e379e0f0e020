"""Whether the study's aims are met, one line each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from label_noise.records import read_all
from label_noise.tables import mean_of, values_of

__all__ = ["detection_aims", "rate_aims"]

OURS = "cwerm"
SINGLE = ("20-NN, share", "20-NN, margin", "logistic regression", "cleanlab")
TRUSTED_PEERS = ("auto, first version", "postAll", "head on the trusted")
CLOSE, AHEAD, PAIR, FLAGS = 0.003, 0.03, 0.95, 0.01
CALIBRATED, WITHIN = 0.05, 0.05
COVERED, LEAST_COVERED = 0.85, 14 / 20

Found = dict[str, list[dict[str, Any]]]


def _line(met: bool, text: str) -> str:
    return f"- {'met' if met else 'NOT MET'}: {text}"


def detection_aims(out: Path, data: str, cells: Sequence[str], seeds: list[int]) -> Iterator[str]:
    """Detection with nothing clean and with trusted samples."""
    noisy = [cell for cell in cells if cell != "clean"]
    made = {cell: read_all(out, "detect", data, cell, "nothing", seeds) for cell in noisy}
    done = [cell for cell in noisy if mean_of(made[cell], OURS, "auroc") is not None]
    for cell in done:
        mine = _auroc(made[cell], OURS)
        best = max(SINGLE, key=lambda row: _auroc(made[cell], row))
        theirs = _auroc(made[cell], best)
        text = f"{data}, {cell}: AUROC {mine:.3f}, the best single one ({best}) {theirs:.3f}"
        yield _line(mine >= theirs - CLOSE, text)
    if done:
        averages = {
            row: statistics.mean(_auroc(made[cell], row) for cell in done)
            for row in (OURS, *SINGLE)
        }
        best = max(SINGLE, key=lambda row: averages[row])
        text = f"{data}, mean of {len(done)} noisy cells: {averages[OURS]:.3f}, {best} {averages[best]:.3f}"
        yield _line(averages[OURS] >= averages[best] + AHEAD, text)
    if "pair 40" in done:
        value = _auroc(made["pair 40"], OURS)
        yield _line(value >= PAIR, f"{data}, pair 40: AUROC {value:.3f} of at least {PAIR}")
    for cell in done:
        mine, theirs = (mean_of(made[cell], row, "f1") or 0 for row in (OURS, "cleanlab"))
        text = f"{data}, {cell}: F1 of the flags {mine:.3f}, cleanlab {theirs:.3f}"
        yield _line(mine >= theirs - FLAGS, text)
    for cell in done:
        trusted = read_all(out, "detect", data, cell, "trusted", seeds)
        if mean_of(trusted, OURS, "auroc") is None:
            continue
        mine = _auroc(trusted, OURS)
        rows = {row: _auroc(trusted, row) for row in TRUSTED_PEERS}
        rows["without them"] = _auroc(made[cell], OURS)
        best = max(rows, key=lambda row: rows[row])
        text = f"{data}, {cell}, with trusted samples: AUROC {mine:.3f}, {best} {rows[best]:.3f}"
        yield _line(mine >= rows[best] - CLOSE, text)


def _auroc(found: Found, row: str) -> float:
    value = mean_of(found, row, "auroc")
    return -1.0 if value is None else value


def rate_aims(out: Path, cells: Sequence[tuple[str, str, str]], seeds: list[int]) -> Iterator[str]:
    """The noise rate, its interval and the calibration, over the cells (data, cell, given)."""
    every: list[float] = []
    for data, cell, given in cells:
        found = read_all(out, "rate", data, cell, given, seeds)
        true, rate = values_of(found, OURS, "true_rate"), values_of(found, OURS, "rate")
        if not rate:
            continue
        where = f"{data}, {cell}, {given}"
        gap = statistics.mean(rate) - statistics.mean(true)
        worst = max((r - t for r, t in zip(rate, true, strict=True)), key=abs)
        text = f"{where}: the rate is off by {gap:+.3f} in the mean, {worst:+.3f} at worst"
        yield _line(abs(gap) <= WITHIN, text)
        covered = values_of(found, OURS, "covered")
        every += covered
        text = f"{where}: the interval covers in {sum(covered):.0f} of {len(covered)}"
        yield _line(sum(covered) >= LEAST_COVERED * len(covered), text)
        error = mean_of(found, OURS, "calibration")
        if error is not None:
            yield _line(error <= CALIBRATED, f"{where}: expected calibration error {error:.3f}")
    if every:
        text = (
            f"all cells: the interval covers in {statistics.mean(every):.3f} of {len(every)} draws"
        )
        yield _line(statistics.mean(every) >= COVERED, text)
