"""The points of a sweep's space, and the jobs they stand for."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cwerm.errors import UserError, did_you_mean
from cwerm.job.file import apply_override, methods_first, read_tree, set_key
from cwerm.job.tree import SECTIONS, Job, parse_job
from cwerm.sweeps.file import Point, Sweep, flat, is_range
from cwerm.sweeps.reading import check_keys, fitting, load_sweep
from cwerm.terminal import console

DRAWN = 0.1  # of the training images, as validation split


def load_both(
    sweep_file: str | Path,
    job_file: str | Path,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> tuple[Sweep, Job]:
    """A sweep, and the job that every trial starts from: the file's, changed by the sweep and overrides.

    Raises:
        UserError: a mistake in a file or an override, or a key in the sweep that no job has.
    """
    sweep = load_sweep(sweep_file)
    job = parse_job(base_tree(job_file, sweep, overrides, options or {}))
    sweep = fitting(sweep, job.model_dump())
    check_keys(sweep, job.model_dump())
    return sweep, job


def with_validation(sweep: Sweep, job: Job) -> Job:
    """The job with a validation split to judge the sweep by; that it is drawn is told."""
    keys = ("data.validation", "data.validation_fraction")
    judged_by = [metric for metric in sweep.metrics if metric.startswith("validation_")]
    data = job.data
    if not judged_by or data.validation or data.validation_fraction or {*keys} & {*sweep.keys}:
        return job
    console.note(
        f"judged by validation images: {100 * DRAWN:g} % of the training images are drawn for it, where "
        "data.source has no validation split (data.validation_fraction; metric: test_accuracy draws none)"
    )
    drawn = data.model_copy(update={"validation_fraction": DRAWN})
    return job.model_copy(update={"data": drawn})


def points(sweep: Sweep, seed: int) -> list[Point]:
    """The points of a grid, or those that ``random`` draws with this seed, without repeats."""
    found: list[Point] = []
    for number, space in enumerate(sweep.spaces):
        drawn = _grid(space) if sweep.search == "grid" else _drawn(sweep, space, [seed, number])
        found += [point for point in drawn if point not in found]
    return found


def bounds(sweep: Sweep) -> list[Point]:
    """Points at the ends of each range, one after the other: a job must take them, too."""
    found = []
    for space in sweep.spaces:
        ranges = {key: value for key, value in space.items() if is_range(value)}
        fixed = {key: value for key, value in space.items() if key not in ranges}
        for key, value in ranges.items():
            ((kind, given),) = value.items()
            if kind not in ("grid", "choice"):
                whole = [round(end) if kind == "integer" else float(end) for end in given]
                found += [{**fixed, key: end} for end in whole]
    return found


def check_baseline(sweep: Sweep, jobs: Sequence[Job]) -> None:
    """Refuse a baseline that no trial is.

    Raises:
        UserError: naming the first of its keys that no trial has this value of.
    """
    left = [dict(flat(job.model_dump())) for job in jobs] if sweep.baseline else []
    for key, value in flat(sweep.baseline):
        known = [point.get(key) for point in left]
        left = [point for point in left if point.get(key) == value]
        if not left:
            hint = did_you_mean(str(value), sorted({str(one) for one in known}))
            raise UserError(f"baseline.{key}: no trial has '{value}' there{hint}")


def domain(value: Any) -> Any:
    """Ray Tune's form of a range; other values as they are."""
    from ray import tune

    if not is_range(value):
        return value
    ((kind, given),) = value.items()
    if kind in ("grid", "choice"):
        return tune.choice(given)
    if kind == "integer":
        return tune.randint(given[0], given[1] + 1)
    return (tune.uniform if kind == "uniform" else tune.loguniform)(*given)


def trial_job(base: Mapping[str, Any], point: Point) -> Job:
    """The job of one point; its name is that of the base.

    Raises:
        UserError: a key or value that no job has.
    """
    tree = copy.deepcopy(dict(base))
    for key in methods_first(point):
        set_key(tree, key, point[key], SECTIONS)
    return parse_job(tree)


def base_tree(
    path: str | Path, sweep: Sweep, overrides: Sequence[str], options: Mapping[str, str]
) -> dict[str, Any]:
    """The job file with the sweep's own settings, then the command line's.

    Raises:
        UserError: the file or an override is wrong, or an override sets what the sweep varies.
    """
    tree = read_tree(path)
    for key, value in dict(flat(sweep.job)).items():
        set_key(tree, key, value, SECTIONS)
    for override in methods_first(overrides):
        key = override.partition("=")[0]
        if key in sweep.keys:
            raise UserError(f"{key}: the sweep varies this key; set it in the sweep's file")
        apply_override(tree, override, SECTIONS)
    for key, value in options.items():
        set_key(tree, key, value, SECTIONS)
    return tree


def _grid(space: Point) -> list[Point]:
    values = [next(iter(v.values())) if is_range(v) else [v] for v in space.values()]
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def _drawn(sweep: Sweep, space: Point, seed: list[int]) -> list[Point]:
    import numpy as np

    state = np.random.RandomState(np.random.SeedSequence(seed).generate_state(4))

    def draw(value: Any) -> Any:
        if not is_range(value):
            return value
        return domain(value).sample(random_state=state)

    return [{key: draw(value) for key, value in space.items()} for _ in range(sweep.num_samples)]
