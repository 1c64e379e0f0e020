"""Label agreement against a plain loop over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from cwerm.algorithms.neighbors import NeighborIndex
from cwerm.algorithms.spreading.agreement import label_agreement, search_others


def _plain_neighbors(
    features: np.ndarray, coreset: np.ndarray, ids: np.ndarray, k: int
) -> np.ndarray:
    """Of each id, its k nearest in the coreset without itself; by distance, then by id."""
    answer = []
    for i in ids:
        others = [
            (float(np.linalg.norm(features[i] - features[j])), int(j)) for j in coreset if j != i
        ]
        answer.append([j for _, j in sorted(others)[:k]])
    return np.array(answer)


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_leave_the_sample_itself_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(60, 5)).astype(np.float32)
    features[7] = features[3]  # a twin in the coreset must not be mistaken for the sample itself
    coreset = np.array([3, 7, *range(20, 45)])
    ids = np.arange(60)
    index = NeighborIndex(features[coreset], coreset)
    distances, found = search_others(index, features, ids, 4)
    assert np.array_equal(found, _plain_neighbors(features, coreset, ids, 4))
    expected = np.linalg.norm(features[ids, None] - features[found], axis=2)
    assert np.allclose(distances, expected, atol=1e-6)


def test_agreement_is_the_share_of_equal_labels() -> None:
    neighbor_labels = np.array([[1, 1, 2, 1], [0, 0, 0, 0], [3, 2, 1, 0]])
    assert label_agreement(neighbor_labels, np.array([1, 1, 3])).tolist() == [0.75, 0.0, 0.25]
