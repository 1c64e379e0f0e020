"""Reading a sweep's file, and what is refused before anything runs. Strict YAML, as job files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cwerm.errors import UserError, did_you_mean
from cwerm.job.file import read_tree
from cwerm.sweeps.file import EPOCH_METRICS, WHEN, Sweep, flat, is_range
from cwerm.values.explain import explain

HOW = (
    "name",
    "storage",
    "resources",
    "s3",
)  # names and sections of a job on which no result depends


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
    for space in sweep.listed:
        if not isinstance(space.get(WHEN, {}), dict):
            raise UserError(
                "space.when: takes keys of the job with a value or a list of values each"
            )
    for space in sweep.spaces:
        for key, value in space.items():
            if is_range(value):
                _check_range(sweep, key, value)
    _check_keys(sweep)
    _check_search(sweep)
    return sweep


def _check_range(sweep: Sweep, key: str, value: Any) -> None:
    ((kind, given),) = value.items()
    if kind in ("grid", "choice"):
        if not isinstance(given, list) or not given:
            raise UserError(f"space.{key}: {kind} takes a list of values")
        for place, one in enumerate(given):
            # 1 and 1.0 are the same learning rate, but true is not 1
            if any(
                one == other and isinstance(one, bool) == isinstance(other, bool)
                for other in given[:place]
            ):
                raise UserError(f"space.{key}: {one} stands twice; give each value once")
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


def _check_keys(sweep: Sweep) -> None:
    """Refuse keys that make no two results different, and those that are given in two places."""
    if not sweep.listed:
        raise UserError("space: the list is empty; give at least one space")
    job = {key for key, _ in flat(sweep.job)}
    for space in sweep.listed:
        names = [name for name, _ in flat({k: v for k, v in space.items() if k != WHEN})]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"space.{name}: given twice in one space; give it once")
            if name in job:
                raise UserError(
                    f"job.{name}: the space has this key, too; give it in one of the two"
                )
            if name.partition(".")[0] in HOW:
                raise UserError(
                    f"space.{name}: it says how or where a trial runs, and no result depends on it; set it "
                    "in the job or on the command line"
                )


def _check_search(sweep: Sweep) -> None:
    if len(sweep.asked_modes) != len(sweep.metrics):
        raise UserError("mode: give one for all metrics, or as many as there are metrics")
    for metric, mode, asked in zip(sweep.metrics, sweep.modes, sweep.asked_modes, strict=True):
        if mode != asked:
            less = "less" if mode == "min" else "more"
            raise UserError(
                f"mode: {asked} for {metric}, of which {less} is better; leave mode out"
            )
    if len(sweep.metrics) > 1 and sweep.search != "optuna":
        raise UserError("metric: only search: optuna weighs several; give one")
    if sweep.search == "optuna" and len(sweep.spaces) > 1:
        raise UserError("space: search: optuna takes one space; give one")
    if sweep.search == "optuna" and not any(map(is_range, sweep.spaces[0].values())):
        raise UserError(
            "space: nothing in it varies, so optuna has nothing to choose; give a range"
        )
    if sweep.scheduler == "none":
        return
    if sweep.metrics[0] not in EPOCH_METRICS or len(sweep.metrics) > 1:
        raise UserError(
            f"metric: a scheduler needs one that each epoch gives: {', '.join(EPOCH_METRICS)}; test images "
            "are read at the end"
        )
    if any(is_range(space.get("train.epochs")) for space in sweep.spaces):
        raise UserError(
            "space.train.epochs: a scheduler compares trials after the same number of epochs, at which a "
            "longer training is still at its high learning rate; vary it with scheduler: none"
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
    kept = []
    for space, condition in zip(sweep.listed, sweep.conditions, strict=True):
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
