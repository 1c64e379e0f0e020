"""Coreset selection methods, one module each: a new module here is a new method of its name.

A method states in `NEEDS` what it looks at: the `labels`, the `distances` to the class medians, the
`features`, or the `outputs` of a head in training (a `TrainingRecord`). Its `choose` picks from one
group of samples: a class, or the whole data set.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from cwerm.algorithms.names import unknown_name
from cwerm.algorithms.training_record import TrainingRecord

__all__ = ["Method", "Needs", "centered", "highest", "load_method", "method_names"]

Needs = Literal["labels", "distances", "features", "outputs"]


@runtime_checkable
class Method(Protocol):
    """What a module in this package provides."""

    NEEDS: Needs

    def choose(
        self,
        count: int,
        values: Shaped[np.ndarray, "group ..."] | TrainingRecord,
        generator: np.random.Generator,
    ) -> Integer[np.ndarray, "count"]:
        """Positions of the `count` samples chosen from a group with these values, in any order."""
        ...


def method_names() -> list[str]:
    """The names of all methods."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def load_method(name: str) -> Method:
    """The method of that name; ValueError lists them all."""
    if name not in method_names():
        raise unknown_name("coreset method", name, method_names())
    return cast(Method, cast(Any, importlib.import_module(f"{__name__}.{name}")))


def highest(
    scores: Shaped[np.ndarray, "group"], count: int, generator: np.random.Generator
) -> Int[np.ndarray, "{count}"]:
    """Positions of the `count` highest scores; of equals, any by the generator."""
    return np.lexsort((generator.random(len(scores)), -scores))[:count]


def centered(features: Float[np.ndarray, "group d"]) -> Float[np.ndarray, "group d"]:
    """The features less their mean, float32: small norms keep rounding small."""
    rows = features.astype(np.float32)
    rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return rows
