"""What the reweighting learned, evaluated on every sample."""

from __future__ import annotations

from typing import Literal

from cwerm.methods.spreading import OfLearned


class Function(OfLearned):
    """A function of a sample; its neighbours are for people to look at."""

    method: Literal["function"] = "function"
    """What the reweighting learned, evaluated on every sample."""
