"""What the reweighting learned from the loss and from the agreement of the neighbours' labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from cwerm.methods.spreading import OfLearned


class Agreement(OfLearned):
    """A function of the loss and of the share of the neighbours that have the sample's label."""

    method: Literal["agreement"] = "agreement"
    """The same with the neighbours' label agreement beside the loss."""

    leaves_one_out: ClassVar[bool] = True
    asks_agreement: ClassVar[bool] = True
    usual_neighbors: ClassVar[int] = 10
