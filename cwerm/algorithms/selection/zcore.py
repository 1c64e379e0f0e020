"""ZCore: samples that random points of the feature space find nearest, less what they make redundant.

Source: Griffin, Marks and Corso, "Zero-shot coreset selection" (arXiv 2411.15349, 2024). Each round draws
two of the dimensions and a point in them, triangular between each dimension's least, median and largest
value; the nearest sample gains 1, and its own nearest samples share a loss of 1, in proportion to
1 / distance^4. Labels are not looked at. Distances are sums of absolute differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float64, Int, Integer

from cwerm.algorithms.selection import Needs, highest

NEEDS: Needs = "features"
DIMENSIONS = 2
REDUNDANT, EXPONENT = 1000, 4
ROUNDS_A_SAMPLE = 10
MOST_ROUNDS, MOST_DISTANCES = (
    1_000_000,
    2_000_000_000,
)  # the paper's rounds, and what bounds the time

Draw = tuple[Int[np.ndarray, "drawn"], Float64[np.ndarray, "drawn"]]


def choose(
    count: int, values: Float[np.ndarray, "group d"], generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """The `count` highest scores, of equals any by the generator.

    Ten rounds a sample, at most a million as in the paper, and fewer in groups above some 14,000: a round
    takes as long as there are samples, and all together two thousand million distances at most.
    """
    if count == len(values):
        return np.arange(count)
    rounds = min(ROUNDS_A_SAMPLE * len(values), MOST_ROUNDS, MOST_DISTANCES // len(values))
    return highest(score(values, draws(values, rounds, generator)), count, generator)


def draws(
    features: Float[np.ndarray, "group d"], rounds: int, generator: np.random.Generator
) -> Iterator[Draw]:
    """Different dimensions and a point in them, for each round."""
    rows = features.astype(np.float64) if features.dtype == np.float16 else features
    least, largest = rows.min(axis=0), rows.max(axis=0)
    median = np.median(rows, axis=0)
    for _ in range(rounds):
        dimensions = generator.choice(
            features.shape[1], min(DIMENSIONS, features.shape[1]), replace=False
        )
        low, middle, high = (
            part[dimensions].astype(np.float64) for part in (least, median, largest)
        )
        wide = high > low  # of a constant dimension there is one point only
        yield (
            dimensions,
            np.where(wide, generator.triangular(low, middle, np.where(wide, high, low + 1)), low),
        )


def score(
    features: Float[np.ndarray, "group d"], points: Iterable[Draw]
) -> Float64[np.ndarray, "group"]:
    """How often each sample covers a point, less its redundancy."""
    columns = np.ascontiguousarray(features.T)
    scores = np.zeros(len(features))
    neighbors = min(REDUNDANT, len(features) - 1)
    for dimensions, point in points:
        chosen = columns[dimensions].astype(np.float64)
        best = np.abs(chosen - point[:, None]).sum(axis=0).argmin()
        scores[best] += 1
        gaps = np.abs(chosen - chosen[:, best, None]).sum(axis=0)
        gaps[best] = np.inf
        nearest = np.argpartition(gaps, neighbors - 1)[:neighbors]
        least = gaps[nearest].min()
        if least == 0:  # an equal sample takes the whole loss; the first of them
            scores[np.flatnonzero(gaps == 0)[0]] -= 1
        else:
            shares = (least / gaps[nearest]) ** EXPONENT
            scores[nearest] -= shares / shares.sum()
    return scores
