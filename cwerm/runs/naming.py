"""Which folder a run gets: that of its name, unless another finished run is there."""

from __future__ import annotations

from itertools import count
from typing import Any

from cwerm.errors import UserError
from cwerm.runs.summary import address, load_summary
from cwerm.stages.plan import Plan


def free_name(plan: Plan) -> tuple[str, str | None]:
    """A name under which no other run has finished, and what holds the job's own; None where nothing does.

    A run that differs in method, control or seed is named by them, others are numbered. The same job finds
    its own folder again.
    """
    job = plan.job
    held = _finished(plan, job.name)
    if held is None or _key(plan, job.name, held) == plan["train"].key:
        return job.name, None
    base = job.name
    if (held["method"], held["control"], held["seed"]) != (job.method, job.control, job.seed):
        control = "" if job.control == "none" else f"-{job.control}"
        base = f"{job.name}-{job.method}{control}-seed{job.seed}"
    holds = f"{held['method']}, seed {held['seed']}"
    for number in count(1 if base != job.name else 2):
        name = base if number == 1 else f"{base}-{number}"
        found = _finished(plan, name)
        if found is None or _key(plan, name, found) == plan["train"].key:
            return name, holds
    raise AssertionError("numbers do not end")


def _finished(plan: Plan, name: str) -> dict[str, Any] | None:
    try:
        return load_summary(plan.store.storage.uri(f"runs/{name}"))
    except UserError:
        return None  # there is none, or a damaged one, which the run makes anew


def _key(plan: Plan, name: str, summary: dict[str, Any]) -> str | None:
    """The key of the training that a summary tells of."""
    try:
        _, path = address(plan.store.storage.uri(f"runs/{name}"), summary, "model")
    except UserError:
        return None
    return path.split("/")[2] if path.count("/") > 2 else None
