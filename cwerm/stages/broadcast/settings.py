"""What broadcast sees of a job."""

from __future__ import annotations

from pydantic import SerializeAsAny

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.methods.reweighting import Reweighting
from cwerm.methods.spreading import Spreading
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Settings


class BroadcastSettings(Settings):
    """How weights reach every sample."""

    spreading: SerializeAsAny[Spreading]
    spreading_version: int
    asked: SerializeAsAny[Reweighting] | None
    """The method whose learned function is evaluated; None where weights are all that is spread."""
    seed: int | None
    """Of what that method draws anew before it is given what was learned."""

    @classmethod
    def of(cls, job: Job, outside: Outside) -> BroadcastSettings:
        """Those of this job."""
        del outside
        spreading = job.spreading.effective()
        asked = job.reweighting.effective() if spreading.asks_learned else None
        return cls(
            spreading=spreading,
            spreading_version=spreading.version,
            asked=asked,
            seed=job.seed if asked else None,
        )

    def check_neighbors(self, coreset_size: int) -> None:
        """Refuse to ask for more neighbours than there are.

        Raises:
            UserError: naming the key to change.
        """
        most = coreset_size - self.spreading.leaves_one_out
        if self.spreading.k > most:
            raise UserError(
                f"broadcast.neighbors: {self.spreading.k} asked of a coreset of {coreset_size}; "
                "ask for fewer, or raise coreset.ratio"
            )


def needs(job: Job) -> tuple[str, ...]:
    """What is read: features only where neighbours are asked for, or what was learned on features."""
    asked = ("ingest", "label", "select", "reweight")
    spreading = job.spreading
    on_features = spreading.asks_learned and job.reweighting.reads == "features"
    return (*asked, "extract") if spreading.k or on_features else asked
