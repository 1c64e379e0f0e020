"""CMW-Net: a weight net that tells classes of different size apart.

Source: Shu et al., "CMW-Net: Learning a class-aware sample weighting mapping for robust deep learning"
(TPAMI 2023). Classes are put into a few groups of like size by k-means of their sizes; V has one hidden
layer of the loss, which all share, and an output for each group. So what makes a sample of a rare class
probably wrong may differ from what does so in a frequent one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from cwerm.algorithms.class_labels import as_labels
from cwerm.algorithms.inputs import Given
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet

__all__ = ["CMWNet", "ClassWeightNet", "size_groups"]

GROUPS = 3


def size_groups(
    sizes: Integer[np.ndarray, " classes"], groups: int = GROUPS
) -> Int64[np.ndarray, " classes"]:
    """The group of each class, from 0 for the smallest sizes on: k-means of the sizes, exact.

    As many groups as there are different sizes, if those are fewer.
    """
    values, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    groups = min(groups, len(values))
    # k-means on a line has groups without gaps: the best cut of the first i values into g groups
    weight = np.concatenate([[0], np.cumsum(counts, dtype=np.float64)])
    total = np.concatenate([[0], np.cumsum(counts * values, dtype=np.float64)])
    square = np.concatenate([[0], np.cumsum(counts * values.astype(np.float64) ** 2)])

    def spread(starts: np.ndarray, stop: int) -> np.ndarray:
        """Squared distances to the mean of the values from each start to the stop."""
        return (
            square[stop]
            - square[starts]
            - (total[stop] - total[starts]) ** 2 / (weight[stop] - weight[starts])
        )

    best = np.array([0.0, *(spread(np.array([0]), stop)[0] for stop in range(1, len(values) + 1))])
    cuts = np.zeros((groups, len(values) + 1), np.int64)
    for group in range(1, groups):
        before = best.copy()
        best[: group + 1] = np.inf
        for stop in range(group + 1, len(values) + 1):
            starts = np.arange(group, stop)
            costs = before[starts] + spread(starts, stop)
            cuts[group, stop] = starts[costs.argmin()]
            best[stop] = costs.min()
    group_of_value = np.zeros(len(values), np.int64)
    stop = len(values)
    for group in range(groups - 1, 0, -1):
        start = cuts[group, stop]
        group_of_value[start:stop] = group
        stop = start
    return group_of_value[place]


class ClassWeightNet(nn.Module):
    """V: maps a sample's loss and its class's group to its weight in (0, 1).

    A sample has 1 + `groups` values: its loss, and 1 in the column of its group, 0 in the others.
    """

    def __init__(self, groups: int, hidden: int = 100) -> None:
        super().__init__()
        self.inputs = 1 + groups
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, groups)

    def forward(self, values: Float[Tensor, "batch inputs"]) -> Float[Tensor, " batch"]:
        """Return one weight a sample."""
        outputs = self.output(self.hidden(values[:, :1]).relu())
        return (outputs * values[:, 1:]).sum(1).sigmoid()


class CMWNet(MetaWeightNet):
    """`MetaWeightNet` with an output of V for each group of classes of like size.

    Constructed and fitted in the same way, without `extra` beside the groups. After `fit` also:
    `groups_`, the group of each of the classes that occur in `labels`, ascending. Where all classes are
    of one size it is `MetaWeightNet`.
    """

    def weigh(self, losses: Given, labels: Given = None) -> Any:
        """Return V of the losses [n] of any samples with these labels [n], of classes seen in `fit`."""
        if labels is None:
            raise ValueError("the weights depend on the labels: give them, too")
        known = as_labels(labels, len(losses), "labels", "losses")
        places = np.searchsorted(self._labels, known.classes)
        places = np.minimum(places, len(self._labels) - 1)
        strange = self._labels[places] != known.classes
        if strange.any():
            raise ValueError(
                f"label {known.classes[strange.argmax()]} was not among those of fit; remove its samples"
            )
        return super().weigh(losses, self._one_hot(places[known.codes]))

    def _columns(self, extra: Given | None, labels: Given, size: int) -> Tensor | None:
        if extra is not None:
            raise ValueError("CMWNet has no further inputs: leave extra out, or use MetaWeightNet")
        known = as_labels(labels, size, "labels", "inputs")
        self.groups_ = size_groups(np.bincount(known.codes))
        self._labels = known.classes
        return super()._columns(self._one_hot(known.codes), labels, size)

    def _one_hot(self, codes: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n groups"]:
        return np.eye(self.groups_.max() + 1, dtype=np.float32)[self.groups_[codes]]

    def _weight_net(self, inputs: int) -> nn.Module:
        return ClassWeightNet(inputs - 1, self.hidden)
