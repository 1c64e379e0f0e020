"""Open-set noise: images of another source that carry labels of this one.

As in Wang et al., "Iterative learning with open-set noisy labels" (CVPR 2018): no label is right for
such an image.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

__all__ = ["draw_replacements"]

ROWS, SOURCE = 23, 24


def draw_replacements(
    num_samples: int, source_size: int, rate: float, seed: int = 0
) -> tuple[Int64[np.ndarray, "replaced"], Int64[np.ndarray, "replaced"]]:
    """Which rows are replaced, ascending, and the other source's row that each of them takes.

    Exactly round(rate * num_samples) rows, each taking another row of the source while there are any,
    as often as the others otherwise, give or take one. The rows replaced at a lower rate are replaced
    at a higher one, too. Raises ValueError for a rate outside 0 to 1 and an empty source.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the noise rate must be from 0 to 1, got {rate}")
    count = round(rate * num_samples)
    if count and source_size < 1:
        raise ValueError("the other source has no samples")
    order = np.random.default_rng([seed, 0, ROWS]).permutation(num_samples)[:count]
    generator = np.random.default_rng([seed, 0, SOURCE])
    rounds = -(-count // max(1, source_size))
    taken = [generator.permutation(source_size) for _ in range(rounds)]
    source = np.concatenate([np.empty(0, np.int64), *taken])[:count]
    ascending = np.argsort(order)
    return order[ascending], source[ascending]
