"""What plain arrays say of the noisy chain, for the tests of methods and of reweighting."""

from __future__ import annotations

import numpy as np

from cwerm.stages import common
from stages.conftest import Chain


class Arrays:
    """What the stages have read, as plain arrays."""

    def __init__(self, chain: Chain) -> None:
        features = chain.table("extract", "features")
        self.features = common.column(features, "feature").astype(np.float32)
        self.labels = chain.labels.astype(np.int64)
        self.ids = common.column(chain.table("select", "coreset"), "id")
        if "meta" in chain.made["select"].tables:
            meta = chain.table("select", "meta")
            self.meta = common.column(meta, "id")
            self.meta_labels = common.column(meta, "label").astype(np.int64)

    @property
    def sets(self) -> tuple[np.ndarray, ...]:
        """Coreset and meta set as `fit` takes them."""
        coreset = self.features[self.ids], self.labels[self.ids]
        return *coreset, self.features[self.meta], self.meta_labels

    def agreement(self, neighbors: int) -> np.ndarray:
        """Share of each sample's nearest other coreset samples with its label, by brute force."""
        exact = self.features.astype(np.float64)
        shares = []
        for i in range(len(exact)):
            others = self.ids[self.ids != i]
            near = others[np.argsort(((exact[others] - exact[i]) ** 2).sum(1))[:neighbors]]
            shares.append(np.mean(self.labels[near] == self.labels[i]))
        return np.array(shares, dtype=np.float32)


def weights_of(chain: Chain) -> np.ndarray:
    return common.column(chain.table("broadcast", "weights"), "weight")


def scaled(weights: np.ndarray) -> np.ndarray:
    return weights / weights.mean(dtype=np.float64)


def learned_weights(chain: Chain) -> np.ndarray:
    return common.column(chain.table("reweight", "coreset_weights"), "weight")
