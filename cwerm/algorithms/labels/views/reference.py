"""The reference set in its space: who is a neighbour of whom, and who may vouch for whom."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cwerm.algorithms.labels.views.neighbours import (
    NONE,
    Neighbourhood,
    joined,
    near_duplicates,
    search_all,
)
from cwerm.algorithms.labels.views.ridge import leverage
from cwerm.algorithms.labels.views.space import fit_space, to_space
from cwerm.algorithms.neighbors import NeighborIndex

__all__ = ["FOLDS", "Reference"]

FOLDS = 2


class Reference:
    """Rows 0 to m are the reference set, those after it the trusted samples."""

    def __init__(
        self,
        features: Float[np.ndarray, "m d"],
        trusted: Float[np.ndarray, "t d"],
        groups: Int64[np.ndarray, " m"] | None,
        k: int,
        seed: int,
    ) -> None:
        self.mean, self.axes = fit_space(features, seed)
        self.k = k
        vectors = np.concatenate([self.vectors_of(features), self.vectors_of(trusted)])
        index = NeighborIndex(vectors, np.arange(len(vectors)))
        found = search_all(index, vectors, k)
        group, reach = near_duplicates(found, k)
        self.duplicate_group = group
        self.user_groups = np.full(len(vectors), NONE, np.int64)
        if groups is not None:
            self.user_groups[: len(groups)] = groups
            alone = int(groups.max()) + 1 + np.arange(len(vectors))
            group = joined(group, np.where(self.user_groups == NONE, alone, self.user_groups))
        self.neighbourhood = Neighbourhood(vectors, group, reach, index)
        self.near, _ = self.neighbourhood.search(vectors, group, k, first=found)
        self.fold = np.random.default_rng(seed).permutation(int(group.max()) + 1)[group] % FOLDS
        self.leverage = leverage(vectors)
        alone = np.bincount(group)[group] == 1
        # a network that has seen one shot of a group may not speak of the others
        self.network = np.where(alone, 0, 1 + self.fold)

    @property
    def vectors(self) -> Float32[np.ndarray, "all kept"]:
        """Of the reference set and the trusted samples."""
        return self.neighbourhood.vectors

    @property
    def group(self) -> Int64[np.ndarray, " all"]:
        """The same number for samples that may not vouch for each other."""
        return self.neighbourhood.group

    def vectors_of(self, features: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n kept"]:
        """The vectors of any samples."""
        return to_space(features, self.mean, self.axes)

    def look_up(
        self,
        vectors: Float32[np.ndarray, "n kept"],
        rows: Int64[np.ndarray, " n"],
        groups: Int64[np.ndarray, " n"],
    ) -> tuple[Int64[np.ndarray, "n k"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Of samples: their neighbours, -1 where there are no more, and the network that may speak of each.

        And the group of near-duplicates that each is of, -1 for none. `rows` says which sample of the
        reference set each is, `groups` which of the user's groups it is of, -1 for none.
        """
        near = np.empty((len(vectors), self.k), np.int64)
        which = np.where(rows >= 0, self.network[np.maximum(rows, 0)], 0)
        twin = rows.copy()
        inside, outside = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        near[inside] = self.near[rows[inside]]
        if len(outside):
            barred = self._clusters(groups[outside])
            own = np.full(len(outside), NONE, np.int64)
            near[outside], twin[outside] = self.neighbourhood.search(
                vectors[outside], own, self.k, barred
            )
            kin = (
                twin[outside]
                if barred is None
                else np.where(barred >= 0, self._first(barred), twin[outside])
            )
            which[outside] = np.where(kin >= 0, 1 + self.fold[np.maximum(kin, 0)], 0)
        return near, which, np.where(twin >= 0, self.duplicate_group[np.maximum(twin, 0)], NONE)

    def _clusters(self, groups: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The reference set's groups that hold these of the user's, -1 for none."""
        known, first = np.unique(self.user_groups, return_index=True)
        place = np.minimum(np.searchsorted(known, groups), len(known) - 1)
        return np.where((known[place] == groups) & (groups >= 0), self.group[first[place]], NONE)

    def _first(self, group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """A row of each group."""
        return np.unique(self.group, return_index=True)[1][np.maximum(group, 0)]

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        arrays = {
            "mean": self.mean,
            "axes": self.axes,
            "vectors": self.vectors,
            "group": self.group,
            "reach": np.array(self.neighbourhood.reach),
            "duplicate_group": self.duplicate_group,
            "user_groups": self.user_groups,
            "near": self.near,
            "fold": self.fold,
            "network": self.network,
            "leverage": self.leverage,
        }
        return {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Reference:
        """The one that gave `state`."""
        made = cls.__new__(cls)
        made.mean, made.axes = state["mean"].numpy(), state["axes"].numpy()
        made.duplicate_group = state["duplicate_group"].numpy()
        made.user_groups, made.near = state["user_groups"].numpy(), state["near"].numpy()
        made.fold, made.network = state["fold"].numpy(), state["network"].numpy()
        made.leverage = state["leverage"].numpy()
        made.k = made.near.shape[1]
        made.neighbourhood = Neighbourhood(
            state["vectors"].numpy(), state["group"].numpy(), float(state["reach"])
        )
        return made
