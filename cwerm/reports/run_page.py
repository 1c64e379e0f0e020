"""What a report says of one run: its summary, the training curve, the weights, the classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from cwerm.errors import UserError
from cwerm.reports.figure_style import COLORS, FAINT, INK, STYLE, WORD
from cwerm.reports.panels import METHODS
from cwerm.runs.folder import load_weights
from cwerm.runs.summary import address, load_summary
from cwerm.store.storage import open_storage

LOWEST = 30  # classes that the figure shows
HISTORY = "train/history.json"
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
EPOCH_NUMBERS = {"epoch"} | {f"{split}_{name}" for split in SPLITS for name in ("loss", "accuracy")}


@dataclass(frozen=True)
class Run:
    """A finished run."""

    summary: dict[str, Any]
    history: list[dict[str, Any]]
    """Metrics of each epoch."""
    weights: np.ndarray | None
    """Of all samples, with mean 1; None for a method without."""

    def figures(self) -> dict[str, tuple[str, Figure]]:
        """Caption and figure by file name."""
        found = {"training": ("Training, epoch by epoch.", training_curve(self.history))}
        if self.weights is not None:
            caption = f"Weights of {len(self.weights):,} samples; their mean is 1."
            found["weights"] = (caption, weight_histogram(self.weights))
        known = {
            name: accuracy
            for name, accuracy in self.classes().items()
            if accuracy is not None
        }  # fmt: skip
        which = f"the {LOWEST} lowest of {len(known)}" if len(known) > LOWEST else "each class"
        caption = f"Test accuracy of {which}; the line is that of all test images."
        found["classes"] = (caption, class_accuracy(known, self.summary["test_accuracy"]))
        return found

    def classes(self) -> dict[str, float | None]:
        """Test accuracy by class; None for a class without a test image."""
        names, given = self.summary["class_names"], self.summary["test_per_class_accuracy"]
        return dict(zip(names, given, strict=True))

    def rows(self) -> list[tuple[str, str]]:
        """The summary in words."""
        summary = self.summary
        seconds, reused = summary["seconds"], summary["reused"]
        validated = summary.get("validation_accuracy")
        found = [
            ("method", METHODS[summary["method"]]),
            ("control", summary["control"]),
            ("seed", str(summary["seed"])),
            ("training images", f"{summary['num_samples']:,}"),
            ("unreadable images", f"{summary['num_rejects']:,}"),
            *([("validation accuracy", _percent(validated))] if validated is not None else []),
            ("test images", f"{summary['num_test_samples']:,}"),
            ("test accuracy", _percent(summary["test_accuracy"])),
            ("test accuracy, top 5", _percent(summary["test_accuracy_top5"])),
            ("training accuracy", _percent(summary["train_accuracy"])),
            ("test calibration error", _percent(summary["test_expected_calibration_error"])),
        ]
        for name, score in summary.get("weights", {}).items():
            words = name.replace("_", " ").replace("auroc", "AUROC of wrong labels")
            found.append((words, "-" if score is None else f"{score:.3f}"))
        for stage, value in seconds.items():
            found.append((stage, f"{value:,.1f} s{', reused' if stage in reused else ''}"))
        return [*found, ("all stages", f"{sum(seconds.values()):,.1f} s")]


def read_run(folder: str) -> Run:
    """The run of a folder, its history from the store around it.

    Raises:
        UserError: the folder holds no summary, or the history is no longer in the store.
    """
    summary = load_summary(folder)
    root, path = address(folder, summary, HISTORY)
    try:
        text = open_storage(root).read_bytes(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(
            f"{folder}: its training history is no longer in the store; run the job again"
        ) from None
    weights = None
    if "weights" in summary["artifacts"]:
        weights = load_weights(folder).column("weight").to_numpy()
    return Run(summary, _history(folder, text), weights)


def _history(folder: str, text: bytes) -> list[dict[str, Any]]:
    """The metrics of each epoch, checked."""
    try:
        history: list[dict[str, Any]] = json.loads(text)
        for epoch in history:
            if not all(type(epoch[name]) in (int, float) for name in EPOCH_NUMBERS & epoch.keys()):
                raise ValueError("a metric is no number")
            epoch["epoch"] + 1
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{folder}: its training history can't be read ({error}); run `cwerm repair STORAGE "
            "--delete`, and the job again"
        ) from None
    return history


@matplotlib.rc_context(STYLE)
def training_curve(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and accuracy of training, validation and test images over the epochs."""
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    for axis, metric, factor in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True
    ):
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
        axis.set(xlabel="epoch", ylabel="accuracy, %" if factor == 100 else "loss")
        axis.locator_params(axis="x", integer=True)
        axis.legend(frameon=False)
    return figure


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
def class_accuracy(classes: dict[str, float], accuracy: float) -> Figure:
    """Test accuracy of each class, the lowest first, beside that of all test images."""
    lowest = sorted(classes, key=lambda name: classes[name])[:LOWEST]
    widest = max(len(name) for name in lowest)
    size = 5 + WORD * min(widest, 40), 0.8 + 0.22 * len(lowest)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    values = [100 * classes[name] for name in lowest]
    bars = axis.barh(range(len(lowest)), values, 0.7, color=COLORS[5], edgecolor=INK, lw=0.5)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axis.bar_label(bars, fmt="%.1f", padding=3, bbox=paper)
    axis.axvline(100 * accuracy, color=FAINT, ls="--", lw=1, zorder=0)
    names = [name if len(name) <= 40 else f"{name[:39]}…" for name in lowest]
    axis.set_yticks(range(len(lowest)), names, parse_math=False)
    axis.set_ylim(len(lowest) - 0.4, -0.6)
    axis.set(xlabel="test accuracy, %", xlim=(0, 108))
    return figure


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
