"""The sweep: a search space over any keys of a job, and how to search it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from cwerm.values import Count, Section

WHEN = "when"
KINDS = ("grid", "choice", "uniform", "log_uniform", "integer")
# What each epoch of training gives; a finished trial can be judged by more, see `Metric`.
EPOCH_METRICS = ("validation_accuracy", "validation_accuracy_top5", "train_accuracy", "train_loss")
TEST_METRICS = ("test_accuracy", "test_accuracy_top5")  # what its end gives
Metric = Literal[
    "validation_accuracy",
    "validation_accuracy_top5",
    "test_accuracy",
    "test_accuracy_top5",
    "train_accuracy",
    "train_loss",
    "seconds_total",
    "auroc",
    "effective_sample_size",
]
Mode = Literal["max", "min"]
LESS_IS_BETTER = ("train_loss", "seconds_total")
Point = dict[str, Any]


class Sweep(Section):
    """A file for `cwerm sweep`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "sweep"
    """Name of the sweep's folder, and the first part of its runs' names."""
    space: dict[str, Any] | list[dict[str, Any]]
    """Keys of the job, nested as there or dotted, with a value or one of ``{grid: [...]}``,
    ``{choice: [...]}``, ``{uniform: [low, high]}``, ``{log_uniform: [low, high]}``,
    ``{integer: [low, high]}``, bounds included. Several spaces in a list are searched one after another; one
    with ``when: {data.source: [cifar10, cifar100]}`` is left out where the job has another value there."""
    job: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial that replace those of the job file."""
    baseline: dict[str, Any] = Field(default_factory=dict)
    """Keys and values of the points that all others are compared with, seed by seed."""
    seeds: Count = 1
    """Every point is run with so many seeds, from the job's own on."""
    search: Literal["grid", "random", "optuna"] = "grid"
    """``grid``: every combination; ``random``: ``num_samples`` draws of each space; ``optuna``: so many
    points of one space, each chosen (TPE) after what the earlier ones gave."""
    num_samples: Count = 10
    """Points that ``random`` and ``optuna`` try."""
    metric: Metric | list[Metric] = "validation_accuracy"
    """What a point is judged by; ``optuna`` can weigh several. For a validation metric each trial has a
    validation split, its source's own or a drawn one (``data.validation_fraction``)."""
    mode: Mode | list[Mode] | None = None
    """Whether more of it is better, ``max``, or less, ``min``: known of each metric."""
    scheduler: Literal["none", "asha", "median"] = "none"
    """What stops trials during training: successive halving, or the median of the others."""
    grace_epochs: Count = 1
    """Epochs that every trial is given before a scheduler may stop it."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Of so many trials ``asha`` lets one go on."""
    max_concurrent_trials: Count = 2
    """Trials at a time; their stages share the cluster."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """A failed trial is tried again so often."""
    time_budget_seconds: Annotated[float, Field(gt=0)] | None = None
    """After this time no trial goes on, and the results are those of the finished ones."""
    report: Literal["table1", "ratio", "backbones", "robustness"] | None = None
    """The figures and tables that `cwerm report` makes beside the table of all points."""

    def to_yaml(self) -> str:
        """The sweep as a file, every key present."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    @property
    def metrics(self) -> list[str]:
        """What points are judged by; the best point by the first."""
        return [self.metric] if isinstance(self.metric, str) else [*self.metric]

    @property
    def modes(self) -> list[str]:
        """A mode for each metric."""
        return ["min" if metric in LESS_IS_BETTER else "max" for metric in self.metrics]

    @property
    def asked_modes(self) -> list[str]:
        """Those that the file names."""
        if self.mode is None:
            return self.modes
        return [self.mode] * len(self.metrics) if isinstance(self.mode, str) else [*self.mode]

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The spaces as they stand in the file."""
        return self.space if isinstance(self.space, list) else [self.space]

    @property
    def spaces(self) -> list[Point]:
        """Each space as dotted keys with their values or ranges."""
        return [dict(flat({k: v for k, v in s.items() if k != WHEN})) for s in self.listed]

    @property
    def conditions(self) -> list[Point]:
        """Of each space, by dotted key the values of the job that it is for."""
        return [dict(flat(space.get(WHEN, {}))) for space in self.listed]

    @property
    def keys(self) -> list[str]:
        """The keys that a space varies or sets, in the order of the file."""
        return [*dict.fromkeys(key for space in self.spaces for key in space)]


def is_range(value: Any) -> bool:
    """Whether a value of a space stands for several."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a range is a value."""
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and not is_range(value):
            yield from flat(value, f"{name}.")
        else:
            yield name, value
