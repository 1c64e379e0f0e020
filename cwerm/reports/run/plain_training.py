"""A run beside plain training (ERM) of the same data, settings and seed, where its storage has one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cwerm.errors import UserError
from cwerm.reports.compare import flat_keys, trial_of
from cwerm.reports.points import Trial, matters, setting
from cwerm.runs.summary import FinishedRun
from cwerm.store.storage import open_storage

METRICS = {
    "test_accuracy": "test accuracy",
    "test_accuracy_top5": "test accuracy, top 5",
    "train_accuracy": "training accuracy",
    "test_expected_calibration_error": "test calibration error",
}
PLAIN = "erm"


@dataclass(frozen=True)
class PlainTraining:
    """What plain training gave, or how to have it."""

    command: str
    """That trains plainly where no such run is there, or that compares the two."""
    folder: str | None = None
    rows: tuple[tuple[str, float, float], ...] = ()
    """A metric, of this run and of plain training."""
    chance: float = 0.0
    """By how much two accuracies differ by the choice of the test images, at most in 95 of 100 cases."""


def plain_training(run: FinishedRun) -> PlainTraining | None:
    """None for a run that is itself plain training.

    Raises:
        UserError: the run's job can't be read.
    """
    folder, summary = run.folder, run.summary
    if summary["method"] == PLAIN:
        return None
    trial, tests = trial_of(run)
    for other in map(FinishedRun, _others(folder)):
        try:
            plain, its_tests = trial_of(other)
        except UserError:
            continue  # of an earlier version, or damaged: nothing that can be compared
        if plain.job["method"] == PLAIN and its_tests == tests and _paired(trial, plain):
            return _beside(folder, other.folder, summary, other.summary)
    return PlainTraining(f"cwerm run {folder}/job.yaml method={PLAIN}")


def _beside(folder: str, other: str, run: dict[str, Any], plain: dict[str, Any]) -> PlainTraining:
    rows = tuple(
        (name, run[key], plain[key])
        for key, name in METRICS.items()
        if run[key] is not None and plain[key] is not None
    )
    spread = [each["test_accuracy"] * (1 - each["test_accuracy"]) for each in (run, plain)]
    chance = 1.96 * math.sqrt(sum(spread) / max(1, run["num_test_samples"]))
    return PlainTraining(f"cwerm compare {folder} {other}", other, rows, chance)


def _others(folder: str) -> list[str]:
    """Folders of the other finished runs around this one."""
    own = open_storage(folder).root
    root, found, _ = own.rpartition("/runs/")
    if not found:
        return []
    storage = open_storage(root)
    paths = [entry.path.split("/") for entry in storage.walk("runs")]
    folders = [storage.uri("/".join(path[:2])) for path in paths if path[2:] == ["summary.json"]]
    return [each for each in folders if open_storage(each).root != own]


def _paired(trial: Trial, plain: Trial) -> bool:
    """Whether the two differ in nothing but the method, as far as plain training is concerned."""
    keys = {name for job in (trial.job, plain.job) for name in flat_keys(job)}
    wanted = [key for key in keys if key != "method" and matters(plain.job, key)]
    same = all(setting(trial.job, key) == setting(plain.job, key) for key in wanted)
    return same and trial.seed == plain.seed
