"""Made-up data for the tests of coreset methods, and plain references that several of them need."""

from __future__ import annotations

import math

import numpy as np

from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.selection import load_method


def make_data(n: int = 300, num_classes: int = 3, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = np.sort(generator.choice(num_classes, n, p=[0.5, 0.3, 0.2]))
    features = generator.standard_normal((n, d)) + 1.5 * np.eye(num_classes, d)[labels] + 10
    return features.astype(np.float32), labels.astype(np.int32)


def choose(name: str, count: int, values: np.ndarray | TrainingRecord, seed: int = 0) -> list[int]:
    chosen = load_method(name).choose(count, values, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == count
    return chosen.tolist()


def reference_k_center(features: np.ndarray, count: int) -> list[int]:
    """Step by step, the sample whose nearest chosen one is farthest."""
    rows = features.astype(np.float64)
    chosen = [int(np.argmin([math.dist(row, rows.mean(axis=0)) for row in rows]))]
    while len(chosen) < count:
        free = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(free, key=lambda i: min(math.dist(rows[i], rows[j]) for j in chosen)))
    return chosen
