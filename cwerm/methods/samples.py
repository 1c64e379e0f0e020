"""What methods are given of samples, and how they are asked to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Samples:
    """Some samples, a row each."""

    inputs: np.ndarray
    """Features float32 [n, d], or normalised images float32 [n, 3, side, side]: what the method reads."""
    labels: np.ndarray
    """int64 [n], numbers of classes."""
    agreement: np.ndarray | None = None
    """float32 [n, 1]: the share of the nearest reference samples, the sample itself left out, that have
    its label; where the spreading asks for it."""
    known: np.ndarray | None = None
    """bool [n]: of which a person has said that the label is right; None for none."""
    uncorrected: np.ndarray | None = None
    """int64 [n]: labels as they were before a person corrected some; None where that is not known."""


@dataclass(frozen=True)
class Batch(Samples):
    """Samples that are to be judged, and where they lie among those of the reference set."""

    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """int64 [n]: which sample of the reference set each one is, -1 for none."""
    neighbors: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """int64 [n, k]: the nearest samples of the reference set, the nearest first."""
    distances: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    """float32 [n, k]: how far away these are."""
    trusted: bool = False
    """Whether they are samples that the learning was given as right, whose own labels may not vouch for
    themselves."""


@dataclass(frozen=True)
class Reference:
    """The reference set, which is the coreset, and the weights that were learned on it."""

    labels: np.ndarray
    """int64 [m]."""
    weights: np.ndarray
    """float32 [m]."""


class States(Protocol):
    """Where an unfinished learning is kept, so that an interrupted one goes on."""

    def load(self) -> Iterator[tuple[str, Any]]:
        """Names and saved states that can be read, the latest first."""
        ...

    def save(self, state: Callable[[], Any], epoch: int) -> None:
        """Keep the state after so many epochs; now and then, as that takes time."""
        ...


class NoStates:
    """Nothing is kept."""

    def load(self) -> Iterator[tuple[str, Any]]:
        """None."""
        yield from ()

    def save(self, state: Callable[[], Any], epoch: int) -> None:
        """Keep nothing."""


def _silent(_: Any) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Run:
    """What a method knows besides the samples."""

    class_names: list[str]
    seed: int = 0
    untrained: bool = False
    """The control: all is done as usual, and nothing is learned."""
    device: Any = None
    classifier: Any = None
    """Of images, freshly drawn; None for features."""
    options: Any = None
    """`StepOptions`, which tell a rank its share; None for a process of its own."""
    states: States = field(default_factory=NoStates)
    on_epoch: Callable[[int], object] = _silent
    """Called with the number of epochs that are done."""
    note: Callable[[str], object] = _silent
    """Prints a line for the user."""

    @property
    def num_classes(self) -> int:
        """Classes of the training images."""
        return len(self.class_names)
