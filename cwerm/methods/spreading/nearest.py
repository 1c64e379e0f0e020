"""The weight of the nearest coreset sample (paper, Eq. 3), or the mean of a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cwerm.methods.samples import Batch, Reference
from cwerm.methods.spreading import OfNeighbors

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.methods.reweighting import Learned


class Nearest(OfNeighbors):
    """The weight of the nearest coreset sample."""

    method: Literal["nearest"] = "nearest"
    """The weight of the nearest coreset sample, as in the paper, or the mean of a few."""

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """`cwerm.algorithms.spreading.broadcast.nearest`."""
        from cwerm.algorithms.labels.judgement import Judgement
        from cwerm.algorithms.spreading.broadcast import nearest

        near = batch.neighbors
        return Judgement(nearest(reference.weights[near], reference.labels[near], batch.labels))
