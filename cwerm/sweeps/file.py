"""The sweep: a search space over any keys of a job, and how to search it. Strict YAML, as job files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from cwerm.errors import UserError, did_you_mean
from cwerm.job.file import read_tree
from cwerm.values import Count, Section
from cwerm.values.explain import explain

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
    mode: Mode | list[Mode] = "max"
    """Whether more of it is better, or less; a list along with a list of metrics."""
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
        return [self.mode] * len(self.metrics) if isinstance(self.mode, str) else [*self.mode]

    @property
    def spaces(self) -> list[Point]:
        """Each space as dotted keys with their values or ranges."""
        given = self.space if isinstance(self.space, list) else [self.space]
        return [dict(flat({k: v for k, v in space.items() if k != WHEN})) for space in given]

    @property
    def conditions(self) -> list[Point]:
        """Of each space, by dotted key the values of the job that it is for."""
        given = self.space if isinstance(self.space, list) else [self.space]
        return [dict(flat(space.get(WHEN, {}))) for space in given]

    @property
    def keys(self) -> list[str]:
        """The keys that a space varies or sets, in the order of the file."""
        return [*dict.fromkeys(key for space in self.spaces for key in space)]


def load_sweep(path: str | Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: the file is missing or no YAML mapping, or a key or value is wrong.
    """
    return parse_sweep(read_tree(path))


def parse_sweep(tree: Mapping[str, Any]) -> Sweep:
    """Check a tree of plain values and turn it into a `Sweep`.

    Raises:
        UserError: the first wrong key or value, in one line.
    """
    try:
        sweep = Sweep.model_validate(tree)
    except ValidationError as error:
        # a misspelt key comes before the one that is missing for it
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise UserError(explain(first, Sweep.model_json_schema())) from None
    for space in sweep.space if isinstance(sweep.space, list) else [sweep.space]:
        if not isinstance(space.get(WHEN, {}), dict):
            raise UserError(
                "space.when: takes keys of the job with a value or a list of values each"
            )
    for space in sweep.spaces:
        for key, value in space.items():
            if is_range(value):
                _check_range(sweep, key, value)
    _check_search(sweep)
    return sweep


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


def _check_range(sweep: Sweep, key: str, value: Any) -> None:
    ((kind, given),) = value.items()
    if kind in ("grid", "choice"):
        if not isinstance(given, list) or not given:
            raise UserError(f"space.{key}: {kind} takes a list of values")
        return
    if sweep.search == "grid":
        raise UserError(
            f"space.{key}: a grid has no {kind}; list values with grid, or set search: random"
        )
    number = int if kind == "integer" else (int, float)
    bounds = isinstance(given, list) and len(given) == 2
    if not bounds or not all(isinstance(g, number) and not isinstance(g, bool) for g in given):
        whole = "whole " if kind == "integer" else ""
        raise UserError(f"space.{key}: {kind} takes two {whole}numbers, [low, high]")
    if not given[0] < given[1] or (kind == "log_uniform" and given[0] <= 0):
        positive = " and above 0" if kind == "log_uniform" else ""
        raise UserError(f"space.{key}: {kind} takes [low, high], low below high{positive}")


def _check_search(sweep: Sweep) -> None:
    if len(sweep.modes) != len(sweep.metrics):
        raise UserError("mode: give one for all metrics, or as many as there are metrics")
    if len(sweep.metrics) > 1 and sweep.search != "optuna":
        raise UserError("metric: only search: optuna weighs several; give one")
    if sweep.search == "optuna" and len(sweep.spaces) > 1:
        raise UserError("space: search: optuna takes one space; give one")
    if sweep.scheduler == "none":
        return
    if sweep.metrics[0] not in EPOCH_METRICS or len(sweep.metrics) > 1:
        raise UserError(
            f"metric: a scheduler needs one that each epoch gives: {', '.join(EPOCH_METRICS)}; test images "
            "are read at the end"
        )
    if sweep.search == "optuna" and sweep.seeds > 1:
        raise UserError(
            "seeds: with search: optuna a trial runs all seeds of a point, which a scheduler can't "
            "judge by the epoch; set seeds: 1 or scheduler: none"
        )


def fitting(sweep: Sweep, known: Mapping[str, Any]) -> Sweep:
    """The sweep with the spaces that are for this job; ``known`` is the resolved job.

    Raises:
        UserError: there is none.
    """
    values = dict(flat(known))
    given = sweep.space if isinstance(sweep.space, list) else [sweep.space]
    kept = []
    for space, condition in zip(given, sweep.conditions, strict=True):
        for key in condition:
            if key not in values:
                hint = did_you_mean(key, values) or "; see `cwerm schema`"
                raise UserError(f"space.when.{key}: no key of a job{hint}")
        fits = all(values[key] in _listed(wanted) for key, wanted in condition.items())
        kept += [space] if fits else []
    if not kept:
        key = next(iter(sweep.conditions[0]))
        wanted = [str(v) for c in sweep.conditions for v in _listed(c.get(key, []))]
        raise UserError(
            f"space.when: no space is for {key} '{values[key]}'; those of the file are for "
            f"{', '.join(dict.fromkeys(wanted))}"
        )
    return sweep.model_copy(update={"space": kept})


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def check_keys(sweep: Sweep, known: Mapping[str, Any]) -> None:
    """Refuse a key of a space or of the baseline that no job has.

    ``known`` is a resolved job.

    Raises:
        UserError: naming the key, with a near one.
    """
    names = ["seed", *dict(flat(known))]
    for place, keys in (("space", sweep.keys), ("baseline", dict(flat(sweep.baseline)))):
        for key in keys:
            if key not in names:
                hint = did_you_mean(key, names) or "; see `cwerm schema`"
                raise UserError(f"{place}.{key}: no key of a job{hint}")
    if "seed" in sweep.keys and sweep.seeds > 1:
        raise UserError("seeds: the space varies seed itself; use one of the two")
