"""Ways to spread what was learned on the coreset to all samples, one module each: a new module here is a
new ``broadcast.method``. One of your own needs none: ``broadcast.method: my_module:MyMethod``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from cwerm.methods.samples import Batch, Reference
from cwerm.values import Count, Section

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.methods.reweighting import Learned


class Spreading(Section, ABC):
    """How coreset weights reach every sample (paper, Eq. 3)."""

    method: str
    max_index_bytes: Count = 2**31
    """Memory for the coreset's index in each worker; a larger index is searched in shards."""
    balance: Literal["none", "class"] = "none"
    """``class``: weights have mean 1 within each given class; ``none``: over the whole data set."""

    version: ClassVar[int] = 1
    """Raised when the same settings and samples would give another result."""
    leaves_one_out: ClassVar[bool] = False
    """Whether a sample of the coreset is not asked about itself."""
    asks_learned: ClassVar[bool] = False
    """Whether it asks what was learned about each sample, which must be able to judge."""
    asks_agreement: ClassVar[bool] = False
    """Whether the labels' agreement with those of the neighbours is learned from, and judged with."""

    def made(self) -> Spreading:
        """The way itself; for one that is named by its path, an object of that class."""
        return self

    def effective(self) -> Spreading:
        """The same with all keys that change no weight at their defaults."""
        return self.model_copy(update={"max_index_bytes": 2**31})

    @property
    def k(self) -> int:
        """Coreset samples that it asks for; 0 for no search."""
        return 0

    @abstractmethod
    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """What is said of these samples; ``learned`` is there where `asks_learned`."""


class OfNeighbors(Spreading):
    """A way that asks the nearest coreset samples."""

    neighbors: Count | None = None
    """Coreset samples asked for; where not given, 10 for ``vote`` and ``agreement`` and else 1."""

    usual_neighbors: ClassVar[int] = 1

    def effective(self) -> Spreading:
        """With the number of neighbours that it has."""
        return super().effective().model_copy(update={"neighbors": self.k})

    @property
    def k(self) -> int:
        """As the job says."""
        return self.neighbors or self.usual_neighbors


class OfLearned(OfNeighbors):
    """A way that asks what was learned about each sample."""

    asks_learned: ClassVar[bool] = True

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """What was learned says it."""
        judgement = learned.judge(batch) if learned else None
        assert judgement, "the job was checked for a method that judges"
        return judgement
