"""Unlike views of a sample's class, none of them swayed by its own label, and what they say together.

The views are the labels (or, later, the beliefs) of neighbours, a network's early predictions, a linear
regression and, where a user has them, probabilities of a model of their own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from cwerm.algorithms.labels.views import network, ridge
from cwerm.algorithms.labels.views.reference import FOLDS, Reference
from cwerm.algorithms.labels.views.trusted import FLOOR as HEAD_FLOOR
from cwerm.algorithms.labels.views.trusted import TrustedHead

__all__ = ["OfReference", "Views", "neighbours_for", "product", "shares"]

NEIGHBOURS, LEAST_NEIGHBOURS = 20, 5
SHARE_FLOOR, NETWORK_FLOOR, LINEAR_FLOOR, GIVEN_FLOOR = 0.02, 0.001, 0.02, 0.01

Joint = Float64[np.ndarray, "n classes"]


def neighbours_for(labels: Int64[np.ndarray, " m"]) -> int:
    """How many neighbours to ask: fewer where classes are small, about a third of the usual class."""
    sizes = np.bincount(labels)
    usual = np.median(np.repeat(sizes, sizes))
    return int(np.clip(usual / 3, LEAST_NEIGHBOURS, NEIGHBOURS))


def shares(
    targets: Float[np.ndarray, "m classes"], near: Int64[np.ndarray, "n k"]
) -> Float64[np.ndarray, "n classes"]:
    """The mean target of the neighbours; all classes alike where there is no neighbour (-1)."""
    total = np.zeros((len(near), targets.shape[1]))
    for column in near.T:
        there = column >= 0
        total[there] += targets[column[there]]
    number = (near >= 0).sum(axis=1, keepdims=True)
    return np.where(number > 0, total / np.maximum(number, 1), 1 / targets.shape[1])


def product(share: Joint, predicted: Joint, linear: Joint, chances: Joint | None) -> Joint:
    """How likely each class is in all views; small for all classes where the views do not agree on any."""
    joint = (share + SHARE_FLOOR) * (predicted + NETWORK_FLOOR)
    joint *= np.maximum(linear, 0) + LINEAR_FLOOR
    return joint if chances is None else joint * (chances + GIVEN_FLOOR)


class OfReference(NamedTuple):
    """What is said of the reference set and, after it, the trusted samples: each [all, classes].

    By networks that may have seen the sample; by networks that have not; the latter without what the user's
    probabilities and the trusted samples say, for the gate; and these networks' predictions alone.
    """

    seen: Joint
    unseen: Joint
    plain: Joint
    predicted: Joint


class Views:
    """All views, fitted to targets [all, classes] of the reference set and the trusted samples."""

    def __init__(
        self,
        reference: Reference,
        targets: Float32[np.ndarray, "all classes"],
        seed: int,
        head: TrustedHead | None,
        threads: int = 1,
    ) -> None:
        self.reference, self.targets, self.head = reference, targets, head
        vectors, fold = reference.vectors, reference.fold
        everything = np.arange(len(fold))
        parts = [everything]
        for number in range(FOLDS):
            part = np.flatnonzero(fold != number)
            parts.append(part if len(part) else everything)
        seeds = [seed + number for number in range(len(parts))]
        # side by side, as a step is too small to be shared
        with ThreadPoolExecutor(threads) as pool:
            networks = pool.map(partial(network.train, vectors, targets), seeds, parts)
            self.networks = [*networks]
        self.ridges = [ridge.fit_ridge(vectors, targets, part) for part in parts]
        self.head_weight = 1.0

    def joint(
        self,
        vectors: Float32[np.ndarray, "n d"],
        near: Int64[np.ndarray, "n k"],
        which: Int64[np.ndarray, " n"],
        rows: Int64[np.ndarray, " n"],
        chances: Joint | None,
        trusted: tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "t d"]] | None = None,
    ) -> Joint:
        """What the views say of any samples.

        Of each by the network that `which` names: 0 the one on all samples, 1 and up one that has not seen a
        fold. `rows` says which sample of the reference set each is, -1 for none. `trusted` are, of samples
        that the head has seen, the labels and all that it has seen: each is left out of what it says.
        """
        predicted, linear = self._predict(vectors, which), self._linear(vectors, which, rows)
        joint = product(shares(self.targets, near), predicted, linear, chances)
        if self.head is not None:
            own = (
                self.head.predict_own(vectors, *trusted) if trusted else self.head.predict(vectors)
            )
            joint *= (own + HEAD_FLOOR) ** self.head_weight
        return joint

    def of_reference(self, chances: Joint | None) -> OfReference:
        """What they say of the reference set and the trusted samples; `chances` are of the former alone."""
        reference = self.reference
        vectors, which, rows = reference.vectors, reference.network, np.arange(len(reference.group))
        share = shares(self.targets, reference.near)
        linear = self._linear(vectors, which, rows)
        if chances is not None:
            none = np.ones((len(rows) - len(chances), chances.shape[1]))
            chances = np.concatenate([chances, none])
        predicted = self._predict(vectors, 1 + reference.fold)
        seen = product(share, self._predict(vectors, which), linear, chances)
        plain = product(share, predicted, linear, None)
        unseen = product(share, predicted, linear, chances)
        if self.head is not None and self.head.own is not None:
            start = len(rows) - len(self.head.own)
            self.head_weight = self.head.weight_beside(unseen[start:])
            of_head = np.concatenate([self.head.predict(vectors[:start]), self.head.own])
            for joint in (seen, unseen):
                joint *= (of_head + HEAD_FLOOR) ** self.head_weight
        return OfReference(seen, unseen, plain, predicted)

    def _predict(
        self, vectors: Float32[np.ndarray, "n d"], which: Int64[np.ndarray, " n"]
    ) -> Joint:
        predicted = np.empty((len(vectors), self.targets.shape[1]))
        for number, made in enumerate(self.networks):
            chosen = np.flatnonzero(which == number)
            if len(chosen):
                predicted[chosen] = network.predict(made, vectors[chosen])
        return predicted

    def _linear(
        self,
        vectors: Float32[np.ndarray, "n d"],
        which: Int64[np.ndarray, " n"],
        rows: Int64[np.ndarray, " n"],
    ) -> Joint:
        linear = np.empty((len(vectors), self.targets.shape[1]))
        for number, coefficients in enumerate(self.ridges):
            chosen = np.flatnonzero(which == number)
            linear[chosen] = ridge.predict(coefficients, vectors[chosen])
        own = np.flatnonzero((which == 0) & (rows >= 0))  # these have been seen: leave them out
        part = self.reference.leverage[rows[own], None]
        linear[own] = (linear[own] - part * self.targets[rows[own]]) / (1 - part)
        return linear

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs besides the reference set."""
        state = {"targets": torch.from_numpy(self.targets.copy())}
        for number, made in enumerate(self.networks):
            state |= {f"network.{number}.{i}": layer for i, layer in enumerate(made)}
            state[f"ridge.{number}"] = torch.from_numpy(self.ridges[number].copy())
        if self.head is not None:
            state |= {f"head.{name}": tensor for name, tensor in self.head.state().items()}
        state["head_weight"] = torch.tensor(self.head_weight, dtype=torch.float64)
        return state

    @classmethod
    def from_state(cls, reference: Reference, state: dict[str, Tensor]) -> Views:
        """Those that gave `state`."""
        made = cls.__new__(cls)
        made.reference, made.targets = reference, state["targets"].numpy()
        head = {name[5:]: tensor for name, tensor in state.items() if name.startswith("head.")}
        made.head = TrustedHead.from_state(head) if head else None
        made.head_weight = float(state["head_weight"])
        made.networks, made.ridges = [], []
        for number in range(1 + FOLDS):
            a, b, c, d = (state[f"network.{number}.{i}"] for i in range(4))
            made.networks.append((a, b, c, d))
            made.ridges.append(state[f"ridge.{number}"].numpy())
        return made
