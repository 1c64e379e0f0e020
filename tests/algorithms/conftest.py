"""Data that several tests of reweighting learn from."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Data:
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order]
    return features[100:700], labels[100:700], features[:100], labels[:100]
