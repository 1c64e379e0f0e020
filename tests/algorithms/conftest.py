"""What several tests of the maths share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cwerm.algorithms.torch_state import one_thread

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Data:
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order]
    return features[100:700], labels[100:700], features[:100], labels[:100]


@pytest.fixture
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield
