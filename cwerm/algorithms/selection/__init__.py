"""Coreset selection methods, one module each: a new module here is a new method of its name.

A method states in `NEEDS` what it looks at: the `labels`, the `distances` to the class medians, the
`features`, these with the votes of each sample's neighbours among all samples (`surroundings`), or the
`outputs` of a head in training (a `TrainingRecord`). Its `choose` picks from one
group of samples: a class, or the whole data set.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from cwerm.algorithms.imported import imported
from cwerm.algorithms.inputs import blocks
from cwerm.algorithms.networks.names import unknown_name
from cwerm.algorithms.reweighting.training_record import TrainingRecord
from cwerm.algorithms.spreading.agreement import Surroundings

__all__ = ["Method", "Needs", "centered", "highest", "load_method", "method_names"]

SPREAD = 64.0  # of squared norms, up to which float32 serves

Needs = Literal["labels", "distances", "features", "surroundings", "outputs"]


@runtime_checkable
class Method(Protocol):
    """What a module in this package provides."""

    NEEDS: Needs

    def choose(
        self,
        count: int,
        values: Shaped[np.ndarray, "group ..."] | Surroundings | TrainingRecord,
        generator: np.random.Generator,
    ) -> Integer[np.ndarray, "count"]:
        """Positions of the `count` samples chosen from a group with these values, in any order."""
        ...


def method_names() -> list[str]:
    """The names of all methods."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def load_method(name: str) -> Method:
    """The method of that name, or of a path ``module:Class``; ValueError lists them all."""
    if ":" in name:
        kind = imported(name)
        if not (hasattr(kind, "NEEDS") and hasattr(kind, "choose")):
            raise ValueError(f"'{name}' has no NEEDS and choose, as a coreset method has")
        return cast(Method, kind())
    if name not in method_names():
        raise unknown_name("coreset method", name, method_names())
    return cast(Method, cast(Any, importlib.import_module(f"{__name__}.{name}")))


def highest(
    scores: Shaped[np.ndarray, "group"], count: int, generator: np.random.Generator
) -> Int[np.ndarray, "{count}"]:
    """Positions of the `count` highest scores; of equals, any by the generator."""
    return np.lexsort((generator.random(len(scores)), -scores))[:count]


def centered(features: Float[np.ndarray, "group d"]) -> Float[np.ndarray, "group d"]:
    """The features less their mean, over a power of two that makes the largest about 1.

    Neither squares overflow nor does a far mean cost digits. float32, or float64 where the features are
    float64 or a few rows so far from the others that float32 could not tell those apart.
    """
    rows = _centered(features, np.float64 if features.dtype == np.float64 else np.float32)
    norms = np.einsum("nd,nd->n", rows, rows)
    if rows.dtype == np.float32 and norms.max() > SPREAD * np.median(norms):
        return _centered(features, np.float64)
    return rows


def _centered(features: Float[np.ndarray, "group d"], dtype: type) -> Float[np.ndarray, "group d"]:
    mean = features.mean(axis=0, dtype=np.float64)
    reach = max((features.max(axis=0) - mean).max(), (mean - features.min(axis=0)).max())
    exponent = np.frexp(reach)[1]
    rows: np.ndarray = np.empty(features.shape, dtype)
    for part in blocks(*features.shape):
        rows[part] = np.ldexp(features[part] - mean, -exponent)
    return rows
