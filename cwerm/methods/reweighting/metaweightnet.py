"""Meta-Weight-Net (Shu et al., 2019), the paper's choice: V, a small net from a loss to a weight."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from cwerm.methods.reweighting.stepwise import PAPER, Stepwise
from cwerm.methods.samples import Run
from cwerm.values import Count, Rate


class MetaWeightNet(Stepwise):
    """V of the loss, learned with the classifier (paper, section 4.2)."""

    method: Literal["metaweightnet"] = "metaweightnet"
    """V of the loss of a sample, learned with a classifier on the coreset."""
    weight_lr: Rate = 1e-3
    """Learning rate of the weight net (Adam)."""
    meta_every: Count = 1
    """The weight net moves in every so many steps; above 1 is faster, and an approximation."""
    hidden: Count = 100
    """Hidden units of the weight net."""

    judges: ClassVar[bool] = True
    takes_agreement: ClassVar[bool] = True
    can_stay_untrained: ClassVar[bool] = True
    spreading: ClassVar[str] = "agreement"
    paper: ClassVar[dict[str, Any]] = {**PAPER, "weight_lr": 1e-5}

    def learner(self, classifier: Any, known: dict[str, Any], run: Run) -> Any:
        """`MetaWeightNet`; at a rate of 0 the weight net stays as it is drawn: the control."""
        from cwerm.algorithms.reweighting import metaweight

        return metaweight.MetaWeightNet(
            classifier,
            **known,
            weight_lr=0.0 if run.untrained else self.weight_lr,
            hidden=self.hidden,
            meta_every=self.meta_every,
        )
