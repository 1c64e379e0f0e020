"""What reweight sees of a job."""

from __future__ import annotations

from pydantic import SerializeAsAny

from cwerm.job.tree import Job
from cwerm.methods.reweighting import Reweighting
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings


class ReweightSettings(Settings):
    """How weights are learned on the coreset."""

    method: SerializeAsAny[Reweighting]
    method_version: int
    seed: int
    untrained: bool
    """The control: nothing is learned."""
    on_ranks: bool
    """Every worker takes its share of each batch, as the coreset is all samples."""
    neighbors: int | None
    """Coreset samples whose labels' agreement is learned from, too; None for none."""

    @classmethod
    def of(cls, job: Job, outside: Outside) -> ReweightSettings:
        """Those of this job."""
        del outside
        method, spreading = job.reweighting.effective(), job.spreading
        return cls(
            method=method,
            method_version=method.version,
            seed=job.seed,
            untrained=job.control == "untrained",
            on_ranks=job.method == "w-erm",
            neighbors=spreading.k if spreading.asks_agreement else None,
        )


def needs(job: Job) -> tuple[str, ...]:
    """What is read: the coreset, and its features or images."""
    on_features = job.reweighting.reads == "features" or job.spreading.asks_agreement
    asked = ("ingest", "label", "select")
    return (*asked, "extract") if on_features else asked
