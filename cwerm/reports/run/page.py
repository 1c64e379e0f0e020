"""What a report says of one run, on one page: what was trained, and what was found of its labels."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cwerm.errors import UserError
from cwerm.reports import figure_style
from cwerm.reports.page import Table
from cwerm.reports.panels import METHODS
from cwerm.reports.run import figures
from cwerm.reports.run.map import read_map
from cwerm.reports.run.pictures import duplicate_groups, lowest_pictures
from cwerm.reports.run.plain_training import plain_training
from cwerm.reports.run.samples import Samples, class_rows, read_samples
from cwerm.runs.summary import FinishedRun, address, load_summary
from cwerm.store.storage import open_storage
from cwerm.suspects.templates import page_template
from cwerm.suspects.thumbnails import SIDE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY = "train/history.json"
EPOCH_NUMBERS = {"epoch"} | {
    f"{split}_{name}" for split in figures.SPLITS for name in ("loss", "accuracy")
}
SHOWN = {"ingest": "images", "label": "labels", "extract": "features", "select": "coreset"}
PAGE_VERSION = 1  # raised when the same artifacts would give another page
REJECTS = 200  # shown

T = TypeVar("T")


@dataclass
class RunPage:
    """A page in the making."""

    run: FinishedRun
    history: list[dict[str, Any]]
    """Metrics of each epoch."""
    samples: Samples | None
    """None for a method without weights."""
    missing: list[str] = field(default_factory=list)
    """What could not be shown, and why, in lines."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Figures by file name."""

    @property
    def folder(self) -> str:
        """The run's."""
        return self.run.folder

    @property
    def summary(self) -> dict[str, Any]:
        """The run's."""
        return self.run.summary

    def classes(self) -> dict[str, float | None]:
        """Test accuracy by class; None for a class without a test image."""
        names, given = self.summary["class_names"], self.summary["test_per_class_accuracy"]
        return dict(zip(names, given, strict=True))

    def html(self) -> str:
        """The page; `files` and `missing` are complete after it."""
        samples = self.samples
        classes, axis_end = class_rows(self.classes(), samples)
        last = self.history[-1] if self.history else {}
        tested = last.get("test_reliability")
        if tested is None:
            self.missing.append("the reliability of the model: trained by an earlier version")
        labels = samples.reliability() if samples else None
        drawn = self._try(lambda: samples and read_map(self.run, samples))
        return page_template("cwerm.reports.run", "page.html.jinja").render(
            summary=self.summary,
            rows=summary_rows(self.summary),
            weights=self.summary.get("weights", {}),
            training=self._figure("training", figures.training_curve(self.history)),
            reliability=tested
            and self._figure(
                "reliability",
                figures.reliability(tested, "what the model says", "share of right answers"),
            ),
            label_reliability=labels
            and self._figure(
                "label_reliability",
                figures.reliability(labels, "quality of the label", "share of right labels"),
            ),
            histogram=samples and self._figure("weights", figures.weight_histogram(samples.weight)),
            drawn=drawn,
            map=drawn and self._figure("features", figures.feature_map(drawn)),
            judged=samples is not None and samples.quality is not None,
            suspects=int(samples.suspect.sum()) if samples else 0,
            lowest=(samples and self._try(lambda: lowest_pictures(self.run, samples))) or [],
            matrix=samples and samples.matrix(),
            classes=classes,
            axis_end=axis_end,
            plain=self._try(lambda: plain_training(self.run)),
            rejects=self._try(self._rejects) or [],
            duplicates=self._try(lambda: duplicate_groups(self.run, samples)),
            missing=self.missing,
            folder=self.folder,
            mark=mark(self.summary),
            side=SIDE,
        )

    def _try(self, make: Callable[[], T]) -> T | None:
        """What is made, or a line that says why it can't be: what a run made may be gone from the store."""
        try:
            return make()
        except UserError as error:
            reason = str(error).removeprefix(f"{self.folder}: ")
            if reason not in self.missing:
                self.missing.append(reason)
            return None

    def _figure(self, name: str, figure: Figure) -> str:
        """The figure as SVG in Base64; its files are kept."""
        made = figure_style.images(figure)
        self.files |= {f"{name}.{kind}": data for kind, data in made.items()}
        return base64.b64encode(made["svg"]).decode()

    def _rejects(self) -> list[dict[str, str]]:
        if not self.summary["num_rejects"]:
            return []
        store, images = self.run.artifact("rejects", "ingest")
        found: list[dict[str, str]] = store.read(images, "rejects").slice(0, REJECTS).to_pylist()
        return found


def summary_table(folder: str) -> Table:
    """A run's summary for the terminal.

    Raises:
        UserError: the folder holds none.
    """
    summary = load_summary(folder)
    return Table(f"Run {summary['name']}", ["", ""], [[*row] for row in summary_rows(summary)])


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """A run's summary in words."""
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


def mark(summary: dict[str, Any]) -> str:
    """What tells a page from that of other artifacts, or of an earlier version."""
    made_from = json.dumps([PAGE_VERSION, summary["artifacts"]], sort_keys=True)
    return hashlib.sha256(made_from.encode()).hexdigest()


def read_run(folder: str) -> RunPage:
    """The run of a folder, its history from the store around it.

    Raises:
        UserError: the folder holds no summary, or the history is no longer in the store.
    """
    run = FinishedRun(folder)
    root, path = address(folder, run.summary, HISTORY)
    try:
        text = open_storage(root).read_bytes(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(
            f"{folder}: its training history is no longer in the store; run the job again"
        ) from None
    run.look_up(SHOWN)
    samples = read_samples(run) if "weights" in run.summary["artifacts"] else None
    return RunPage(run, _history(folder, text), samples)


def _history(folder: str, text: bytes) -> list[dict[str, Any]]:
    """The metrics of each epoch, checked."""
    try:
        history: list[dict[str, Any]] = json.loads(text)
        for epoch in history:
            if not all(type(epoch[name]) in (int, float) for name in EPOCH_NUMBERS & epoch.keys()):
                raise ValueError("a metric is no number")
            epoch["epoch"] + 1
            rows = np.array(epoch.get("test_reliability") or [[1, 1, 1]], float)
            if rows.ndim != 2 or rows.shape[1] != 3 or rows[:, 0].min() < 1 or rows.max() == np.inf:
                raise ValueError("a reliability has other columns")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{folder}: its training history can't be read ({error}); run `cwerm repair STORAGE "
            "--delete`, and the job again"
        ) from None
    return history


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
