"""A coreset method, a reweighting method and a way of spreading of one's own; job.yaml names them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cwerm.algorithms.labels.judgement import Judgement
from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.algorithms.spreading.agreement import without_own
from cwerm.methods.reweighting import Learned, Reweighting
from cwerm.methods.samples import Batch, Reference, Run, Samples
from cwerm.methods.spreading import OfNeighbors
from cwerm.values import Count, Rate


class Spread:
    """A coreset from near and far: every so many of the samples, by their distance to the class's median."""

    NEEDS = "distances"
    version = 1

    def choose(self, count: int, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Positions of ``count`` samples of a group with these distances."""
        del generator
        order = np.argsort(values, kind="stable")
        return order[np.linspace(0, len(order) - 1, count).round().astype(np.int64)]


class Neighbors(Learned):
    """What `AgreeingNeighbors` keeps: the coreset itself."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, voters: int) -> None:
        self.features, self.labels, self.voters = features, labels, voters
        self.index = NeighborIndex(features, np.arange(len(labels)))
        self.found = {}

    def judge(self, batch: Batch) -> Judgement:
        """The share of the nearest coreset samples, the sample itself left out, that have its label."""
        found = self.index.search(batch.inputs, self.voters + 1)
        _, near = without_own(*found, batch.rows)
        share = (self.labels[near] == batch.labels[:, None]).mean(axis=1, dtype=np.float32)
        return Judgement(share)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Plain tensors, from which a worker makes it again."""
        arrays = {"features": self.features, "labels": self.labels}
        return {"neighbors": {name: torch.from_numpy(array) for name, array in arrays.items()}}


class AgreeingNeighbors(Reweighting):
    """A sample weighs as much as its neighbours agree with its label. Nothing clean is needed."""

    voters: Count = 10
    """Neighbours that are asked."""

    judges: ClassVar[bool] = True

    def learn(self, reference: Samples, clean: Samples | None, run: Run) -> Neighbors:
        """There is nothing to train."""
        del clean, run
        learned = Neighbors(reference.inputs, reference.labels, self.voters)
        rows = np.arange(len(reference.labels))
        learned.weights = learned.judge(Batch(reference.inputs, reference.labels, rows=rows)).weight
        learned.losses = 1 - learned.weights
        return learned

    def restore(self, state: dict[str, dict[str, Tensor]], run: Run) -> Neighbors:
        """The same from its tensors."""
        del run
        kept = state["neighbors"]
        return Neighbors(kept["features"].numpy(), kept["labels"].numpy(), self.voters)


class NearerCountsMore(OfNeighbors):
    """Neighbours with the sample's own label vote for it with their weights, the nearer ones with more."""

    sharpness: Rate = 1.0
    """How fast a neighbour's say falls with its distance."""

    usual_neighbors: ClassVar[int] = 10
    leaves_one_out: ClassVar[bool] = True

    def spread(self, batch: Batch, reference: Reference, learned: Learned | None) -> Judgement:
        """A neighbour's say is its weight times exp(-sharpness * distance / mean distance)."""
        del learned
        scale = batch.distances.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
        say = reference.weights[batch.neighbors] * np.exp(-self.sharpness * batch.distances / scale)
        agreeing = say * (reference.labels[batch.neighbors] == batch.labels[:, None])
        total = np.maximum(say.sum(axis=1), np.finfo(np.float32).tiny)
        return Judgement((agreeing.sum(axis=1) / total).astype(np.float32))
