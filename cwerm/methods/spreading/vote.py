"""The share of the neighbours' weight that has the sample's own label."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from cwerm.methods.samples import Batch, Reference
from cwerm.methods.spreading import OfNeighbors
from cwerm.values import Rate

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.methods.reweighting import Learned


class Vote(OfNeighbors):
    """Neighbours with the sample's own label vote for it with their weights."""

    method: Literal["vote"] = "vote"
    """The share of the neighbours' weight with the sample's own label."""
    power: Rate = 1.0
    """Exponent of the vote."""

    leaves_one_out: ClassVar[bool] = True
    usual_neighbors: ClassVar[int] = 10

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """`cwerm.algorithms.spreading.broadcast.vote`, to a power."""
        from cwerm.algorithms.labels.judgement import Judgement
        from cwerm.algorithms.spreading.broadcast import vote

        near = batch.neighbors
        votes = vote(reference.weights[near], reference.labels[near], batch.labels)
        return Judgement(votes**self.power)
