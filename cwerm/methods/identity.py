"""Each reweighted sample keeps its weight; for w-erm, whose coreset is all samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from cwerm.methods.samples import Batch, Reference
from cwerm.methods.spreading import Spreading

if TYPE_CHECKING:
    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.methods.reweighting import Learned


class Identity(Spreading):
    """Nothing is spread. The samples that were held out get the mean, and no use is made of it."""

    method: Literal["identity"] = "identity"

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """The samples' own weights."""
        from cwerm.algorithms.labels.judgement import Judgement

        others = np.full(len(batch.rows), reference.weights.mean(), np.float32)
        own = reference.weights[np.maximum(batch.rows, 0)]
        return Judgement(np.where(batch.rows >= 0, own, others))
