"""How likely each label is right, with or without samples known to be clean (`LabelPosterior`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cwerm.methods.reweighting import Learned, Reweighting
from cwerm.methods.samples import Batch, Run, Samples

if TYPE_CHECKING:
    from torch import Tensor

    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.algorithms.labels.posterior import LabelPosterior


class LearnedPosterior(Learned):
    """The posterior of the labels; what a sample weighs is how likely its label is right."""

    def __init__(self, posterior: LabelPosterior) -> None:
        self.posterior = posterior

    def judge(self, batch: Batch) -> Judgement:
        """The quality and the suggestion of each label, too."""
        return self.posterior.judge(
            batch.inputs,
            batch.labels,
            reference_rows=batch.rows,
            known=batch.known,
            trusted=batch.trusted,
        )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """That of the posterior."""
        return {"label_posterior": self.posterior.state()}


class Posterior(Reweighting):
    """How likely each label is right."""

    method: Literal["posterior"] = "posterior"
    """How likely each label is right, with or without samples known to be clean."""

    judges: ClassVar[bool] = True
    believes: ClassVar[bool] = True
    can_stay_untrained: ClassVar[bool] = True
    spreading: ClassVar[str] = "function"
    coreset: ClassVar[str] = "random"  # it looks at all kinds of samples
    reference_size: ClassVar[int | None] = 20_000

    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> LearnedPosterior:
        """The control ``untrained`` weighs all alike."""
        from cwerm.algorithms.labels.posterior import LabelPosterior

        posterior = LabelPosterior(run.num_classes, run.seed)
        # how labels go wrong is seen in all of them as they were given
        before = reference.uncorrected
        posterior.fit(
            reference.inputs,
            reference.labels if before is None else before,
            trusted_features=clean.inputs if clean else None,
            trusted_labels=clean.labels if clean else None,
        )
        if run.untrained:
            posterior.close()
        learned = LearnedPosterior(posterior)
        rows = np.arange(len(reference.labels))
        whole = Batch(reference.inputs, reference.labels, known=reference.known, rows=rows)
        judged = learned.judge(whole)
        learned.weights = judged.weight
        learned.losses = -np.log(np.maximum(judged.quality, np.finfo(np.float32).tiny))
        learned.found = _found(posterior, run.class_names)
        learned.history = {**learned.found, "transitions": posterior.transitions.tolist()}
        return learned

    def restore(self, state: dict[str, dict[str, Tensor]], run: Run) -> LearnedPosterior:
        """The posterior that gave this state."""
        from cwerm.algorithms.labels.posterior import LabelPosterior

        return LearnedPosterior(LabelPosterior.from_state(state["label_posterior"]))


def _found(posterior: LabelPosterior, names: list[str]) -> dict[str, Any]:
    return {
        "open": posterior.open,
        "undecided": posterior.undecided,
        "targets": "relabel" if posterior.verdict.gate.unstructured else "soft",
        "noise_rate": posterior.noise_rate,
        "noise_rate_interval": list(posterior.noise_rate_interval),
        "warnings": list(posterior.warnings_for(names)),
    }
