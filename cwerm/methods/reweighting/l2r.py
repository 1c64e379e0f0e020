"""Learning to reweight (Ren et al., 2018): a weight a sample, and no weight net."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from cwerm.methods.reweighting.stepwise import Stepwise
from cwerm.methods.samples import Run


class L2R(Stepwise):
    """A weight a sample, straight from the meta gradient."""

    method: Literal["l2r"] = "l2r"
    """Learning to reweight: a weight a sample, and no V."""

    spreading: ClassVar[str] = "vote"

    def learner(self, classifier: Any, known: dict[str, Any], run: Run) -> Any:
        """`LearningToReweight`."""
        from cwerm.algorithms.reweighting.metaweight import LearningToReweight

        del run
        return LearningToReweight(classifier, **known)
