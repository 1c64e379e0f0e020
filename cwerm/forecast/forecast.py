"""The distinct artifacts that some jobs need, which are there, and what the others would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from cwerm import pipeline
from cwerm.forecast.by_name import ABSENT, OutsideByName
from cwerm.forecast.work import START_SECONDS, Counts, Work, measured_rate, work_of
from cwerm.job.tree import Job
from cwerm.stages.plan import Plan
from cwerm.terminal import console

MADE = {True: "in the store", False: "to make"}


@dataclass
class Asked:
    """One artifact."""

    stage: str
    is_made: bool | None
    """None where something that it is made of is not on this machine."""
    work: Work
    jobs: int = 0
    """How many ask for it."""


@dataclass(frozen=True)
class Estimate:
    """What all that is to be made takes; what is not known before images are read adds to it."""

    hours: float
    hours_are_complete: bool
    gigabytes: float
    gigabytes_are_complete: bool
    operations_per_second: float
    measured_on: str


@dataclass(frozen=True)
class Forecast:
    """What jobs would make of a store as it is."""

    jobs: int
    artifacts: tuple[Asked, ...]
    absent: dict[str, str] = field(default_factory=dict)
    """What is not on this machine, by the key that names it."""

    def to_make(self, stage: str | None = None) -> list[Asked]:
        """Those that are not known to be there."""
        return [a for a in self.artifacts if not a.is_made and stage in (None, a.stage)]

    def estimate(self) -> Estimate:
        """By the rate of this machine, and what a start has been measured to take."""
        todo = self.to_make()
        rate, where = measured_rate()
        operations = [asked.work.operations for asked in todo]
        stored = [asked.work.bytes for asked in todo]
        seconds = sum(o or 0 for o in operations) / rate + START_SECONDS * len(todo)
        size = sum(b or 0 for b in stored) / 1e9
        return Estimate(
            seconds / 3600, None not in operations, size, None not in stored, rate, where
        )

    def describe(self) -> dict[str, object]:
        """All of it as plain values."""
        stages = {stage: self._counts(stage) for stage in self._stages()}
        known = {"jobs": self.jobs, "stages": stages, "absent": self.absent}
        return known | asdict(self.estimate())

    def tell(self) -> None:
        """Print it."""
        found, todo = self.estimate(), self.to_make()
        for stage in self._stages():
            console.stage_line(stage, self._line(stage))
        for key, name in self.absent.items():
            console.note(
                f"{key}: not on this machine, so what it is made into can't be looked up: {name}"
            )
        more = "" if found.hours_are_complete else " and what the size of the images adds"
        stored = "" if found.gigabytes_are_complete else " and the images themselves"
        console.stage_line(
            "dry run",
            f"{_count(len(todo), 'artifact')} to make, with "
            f"{_count(len(self.to_make('train')), 'training')}; about {_duration(found.hours)}{more}, "
            f"{found.gigabytes:.1f} GB{stored}",
        )
        console.note(
            f"at {found.operations_per_second / 1e9:,.0f} billion operations a second, as a convolution "
            f"takes them on {found.measured_on}, and {START_SECONDS} s for each "
            "artifact's start; nothing was made"
        )

    def _stages(self) -> list[str]:
        return [*dict.fromkeys(asked.stage for asked in self.artifacts)]

    def _line(self, stage: str) -> str:
        counts = self._counts(stage)
        made, distinct = counts["made"], counts["distinct"]
        if self.jobs == 1:
            return "unknown whether it is in the store" if made is None else MADE[bool(made)]
        there = "unknown how many are" if made is None else f"{made:,}"
        return f"{distinct:,} for {counts['asked']:,} jobs, {there} in the store"

    def _counts(self, stage: str) -> dict[str, int | None]:
        own = [asked for asked in self.artifacts if asked.stage == stage]
        known = all(asked.is_made is not None for asked in own)
        return {
            "distinct": len(own),
            "asked": sum(asked.jobs for asked in own),
            "made": sum(bool(asked.is_made) for asked in own) if known else None,
        }


def forecast(jobs: Sequence[Job]) -> Forecast:
    """Plan the jobs and look up what they need; sources are listed and hashed, and nothing is written.

    Raises:
        UserError: a mistake in a job, or a source that is no known name and not there.
    """
    found: dict[tuple[str, str], Asked] = {}
    absent: dict[str, str] = {}
    outsides: dict[str, OutsideByName] = {}
    for job in jobs:
        steps = pipeline.plan(job, "train", *pipeline.beside(job))
        named = (job.data, job.s3, job.features.backbone, job.features.weights, _start(job))
        outside = outsides.setdefault(repr(named), OutsideByName(job))
        steps.outside = outside
        counts = Counts.of(job, outside)
        for stage in steps.names:
            key = steps[stage].key
            if (stage, key) not in found:
                is_made = None if _hangs_on_absent(steps, stage) else steps.is_made(stage)
                found[stage, key] = Asked(stage, is_made, work_of(stage, job, counts))
            found[stage, key].jobs += 1
        absent |= outside.absent
    order = {stage.name: place for place, stage in enumerate(pipeline.PIPELINE)}
    artifacts = sorted(found.values(), key=lambda asked: order[asked.stage])
    return Forecast(len(jobs), tuple(artifacts), absent)


def _hangs_on_absent(steps: Plan, stage: str) -> bool:
    """Whether the key of a stage is made of the name of something that is not here."""
    node = steps[stage]
    own = ABSENT in node.settings.model_dump_json()
    return own or any(_hangs_on_absent(steps, needed) for needed in node.needs)


def _start(job: Job) -> str:
    """What training starts from."""
    return "" if job.train.weights == "random" else f"{job.train.model} {job.train.weights}"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _duration(hours: float) -> str:
    if hours < 1 / 30:
        return f"{3600 * hours:.0f} seconds"
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:,.1f} hours"
