"""Small data sets with known wrong labels."""

from __future__ import annotations

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def blobs(n: int = 600, classes: int = 4, distance: float = 6.0, seed: int = 0) -> Arrays:
    """Features of 12 dimensions and classes: round clouds, `distance` from the middle."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(7).normal(size=(classes, 12))
    centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
    features = random.normal(size=(n, 12)) + centres[labels]
    return features.astype(np.float32), labels


def flipped(labels: np.ndarray, rate: float, seed: int = 0) -> Arrays:
    """Labels of which a share is drawn anew from all other classes, and which are wrong."""
    random = np.random.default_rng([seed, 1])
    wrong = random.random(len(labels)) < rate
    classes = labels.max() + 1
    other = (labels + random.integers(1, classes, len(labels))) % classes
    return np.where(wrong, other, labels), wrong


def soft(rows: np.ndarray, classes: np.ndarray, sharpness: float = 6.0) -> np.ndarray:
    logits = np.random.default_rng(5).normal(size=(len(rows), 4)) + sharpness * np.eye(4)[classes]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
