"""Reweighting methods, one module each: a new module here is a new ``reweight.method``.

A method is a section of the job, with the keys that belong to it and no others, and says how it learns
and what it learned. One of your own needs no module here: ``reweight.method: my_module:MyMethod``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cwerm.methods.samples import Batch, Run, Samples
from cwerm.values import Section

if TYPE_CHECKING:
    from torch import Tensor

    from cwerm.algorithms.labels.judgement import Judgement


class Learned(ABC):
    """What a method learned on the reference set."""

    weights: np.ndarray
    """float32 [m], of the reference set."""
    losses: np.ndarray
    """float32 [m]: how badly each label fits, in the method's own measure."""
    history: Any = ()
    """Plain values for history.json."""
    found: dict[str, Any]
    """What it found out about all labels, for the user."""

    def judge(self, batch: Batch) -> Judgement | None:
        """What it says of any samples; None where it knows the weights of the reference set alone."""
        del batch
        return None

    def state(self) -> dict[str, dict[str, Tensor]]:
        """By name of a file, the plain tensors from which `Reweighting.restore` makes it again."""
        return {}


class Reweighting(Section, ABC):
    """How weights are learned on the coreset."""

    method: str

    version: ClassVar[int] = 1
    """Raised when the same settings and samples would give another result."""
    needs_clean: ClassVar[bool] = False
    """Whether it can't do without samples whose labels are known to be right."""
    judges: ClassVar[bool] = False
    """Whether what it learned judges any sample, not those of the reference set alone."""
    believes: ClassVar[bool] = False
    """Whether what it says of a sample holds how probable each class is."""
    takes_agreement: ClassVar[bool] = False
    """Whether it can learn from the agreement of neighbours, too."""
    shares_steps: ClassVar[bool] = False
    """Whether several ranks can share each step, as w-erm needs."""
    can_stay_untrained: ClassVar[bool] = False
    """Whether there is something to learn that ``control: untrained`` can leave out."""
    spreading: ClassVar[str] = "nearest"
    """What ``broadcast.method: auto`` is with it."""
    coreset: ClassVar[str] = "moderate"
    """What ``coreset.method: auto`` is with it."""
    reference_size: ClassVar[int | None] = None
    """Samples in the coreset where no ratio is given; None for 1% of all."""

    def made(self) -> Reweighting:
        """The method itself; for one that is named by its path, an object of that class."""
        return self

    def effective(self) -> Reweighting:
        """The same with all keys that have no effect at their defaults."""
        return self

    @property
    def reads(self) -> Literal["features", "images", "labels"]:
        """What it must be given of a sample."""
        return "features"

    def num_epochs(self, samples: int) -> int:
        """How often it will call ``on_epoch`` with so many samples."""
        del samples
        return 1

    @abstractmethod
    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> Learned:
        """Learn from the reference set, and from samples whose labels are known to be right.

        Raises:
            ValueError: nothing can be learned from these.
        """

    def restore(self, state: dict[str, dict[str, Tensor]], run: Run) -> Learned:
        """What was learned, from its state, to judge other samples; its weights are not needed there."""
        raise NotImplementedError(f"{type(self).__name__} learns weights and nothing else")
