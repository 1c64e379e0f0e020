"""Clean first: samples whose neighbours carry their label, and among those the ones that cover most.

Coverage alone prefers what lies apart, which under label noise is what is mislabelled. So samples whose
label is outvoted by their nearest neighbours' are left out first, as in SimiFeat (Zhu et al., "Detecting
corrupted labels without training a model to predict", ICML 2022), and `k_center` chooses among the rest.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from cwerm.algorithms.selection import Needs, k_center
from cwerm.algorithms.spreading.agreement import Surroundings

NEEDS: Needs = "surroundings"


def choose(
    count: int, values: Surroundings, generator: np.random.Generator
) -> Integer[np.ndarray, "{count}"]:
    """`count` samples that are not outvoted; where those are too few, the least outvoted ones, too."""
    order = np.argsort(-values.margins, kind="stable")
    kept = order[: max(count, np.count_nonzero(values.margins >= 0))]
    return kept[k_center.choose(count, values.features[kept], generator)]
