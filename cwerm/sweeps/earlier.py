"""What an interrupted sweep had come to, by the records of its trials alone.

Ray Tune's own state is pickles, which nobody should load from a storage that others can write to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cwerm.errors import UserError
from cwerm.reports.points import setting
from cwerm.sweeps.file import Point, Sweep, is_range
from cwerm.sweeps.trial import Records, Trials, is_done, means_of
from cwerm.terminal import console


@dataclass(frozen=True)
class Earlier:
    """Points that have ended, and with `search: optuna` what they were worth and those that had begun."""

    ended: list[Point] = field(default_factory=list)
    judged: list[tuple[Point, list[float]]] = field(default_factory=list)
    begun: list[Point] = field(default_factory=list)


def read_earlier(
    settings: Sweep, trials: Trials, records: Records, configs: list[dict[str, Any]]
) -> Earlier:
    """What an earlier attempt has left: with ``configs`` of these points, else of whichever it chose."""
    if configs:
        return Earlier([config for config in configs if _has_ended(config, trials, records)])
    found = Earlier()
    for point in _points(settings, trials, records):
        made = [records.read(job.name) for job in trials.jobs(point)]
        done = [record for record in made if record and is_done(record, trials)]
        if len(done) == len(made):
            found.judged.append((point, [*means_of(done, trials).values()]))
            found.ended.append(point)
        elif _has_ended(point, trials, records):
            found.ended.append(point)
        else:
            found.begun.append(point)
    return found


def _has_ended(config: dict[str, Any], trials: Trials, records: Records) -> bool:
    """Whether all seeds of a point are done, or the scheduler has stopped it."""
    made = [records.read(job.name) for job in trials.jobs(config)]
    return all(r and (r["status"] == "stopped" or is_done(r, trials)) for r in made)


def _points(settings: Sweep, trials: Trials, records: Records) -> list[Point]:
    """The points that records are of, in the order of their names."""
    (space,) = settings.spaces
    found: list[Point] = []
    for name in records.names():
        record = records.read(name)
        if record is None:
            continue
        job = json.loads(record["job"])
        point = {key: setting(job, key) if is_range(space[key]) else space[key] for key in space}
        try:
            if not all(_lies_in(point[key], space[key]) for key in space):
                raise UserError("its values are not in the space")
            if name not in [job.name for job in trials.jobs(point)]:
                raise UserError("it is of another job")
        except UserError as error:
            console.note(f"{name}: its record is left out ({error})")
            continue
        if point not in found:
            found.append(point)
    return found


def _lies_in(value: Any, given: Any) -> bool:
    """Whether a search could have drawn the value from what the space gives for a key."""
    if not is_range(given):
        return True
    ((kind, values),) = given.items()
    if kind in ("grid", "choice"):
        return value in values
    number = type(value) is int or (kind != "integer" and type(value) is float)
    return number and values[0] <= value <= values[1]
