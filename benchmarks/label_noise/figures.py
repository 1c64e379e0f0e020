"""What a verdict is worth, where the wrong labels are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cwerm.algorithms.detection import auroc, precision_at_errors
from label_noise.scenes import Scene

__all__ = ["Verdict", "calibration_error", "figures"]

BINS = 15


class Verdict(NamedTuple):
    """A method's answer: the lower the quality, the more probably the label is wrong."""

    quality: np.ndarray
    suggested: np.ndarray
    issue: np.ndarray
    noise_rate: float | None = None
    interval: tuple[float, float] | None = None
    opened: bool | None = None


def figures(scene: Scene, verdict: Verdict) -> dict[str, float | bool | None]:
    """The figures of one cell and method; None where one has no meaning.

    - auroc: of the quality, right labels against wrong ones;
    - found: share of wrong labels among the lowest k, k the number of wrong ones (precision and recall);
    - precision, recall, f1 of the flags;
    - suggestions: share of the wrong labels whose suggestion is right;
    - rate, true_rate, low, high, covered: the noise rate, what it is, its interval;
    - calibration: expected calibration error of the quality, in bins of equal width;
    - opened: whether any weight differs from 1.
    """
    wrong, flagged = scene.wrong, verdict.issue.astype(bool)
    some = bool(wrong.any())
    hits = int(np.count_nonzero(flagged & wrong))
    low, high = verdict.interval or (None, None)
    true_rate = float(wrong.mean())
    is_probability = verdict.quality.min() >= 0 and verdict.quality.max() <= 1
    return {
        "auroc": auroc(verdict.quality, wrong) if some else None,
        "found": precision_at_errors(verdict.quality, wrong) if some else None,
        "flagged": float(flagged.mean()),
        "precision": hits / max(1, int(flagged.sum())) if some else None,
        "recall": hits / int(wrong.sum()) if some else None,
        "f1": 2 * hits / (int(flagged.sum()) + int(wrong.sum())) if some else None,
        "suggestions": (
            float((verdict.suggested == scene.truth)[wrong].mean())
            if some and not scene.strangers
            else None
        ),
        "true_rate": true_rate,
        "rate": verdict.noise_rate,
        "low": low,
        "high": high,
        "covered": low <= true_rate <= high if low is not None and high is not None else None,
        "calibration": calibration_error(verdict.quality, ~wrong) if is_probability else None,
        "opened": verdict.opened,
    }


def calibration_error(quality: np.ndarray, right: np.ndarray) -> float:
    """Mean over samples of |mean quality - share of right labels| of the bin that each falls in."""
    place = np.minimum((quality * BINS).astype(int), BINS - 1)
    gap = np.bincount(place, quality - right, minlength=BINS)
    return float(np.abs(gap).sum() / len(quality))
