"""What the reweight stage runs, in one actor or on every rank: a method, on arrays of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cwerm.errors import blame
from cwerm.methods.samples import Run
from cwerm.stages.classifiers import savable
from cwerm.stages.reweight.samples import Task, read_sets
from cwerm.stages.reweight.states import SavedStates
from cwerm.terminal import console


@dataclass
class Outcome:
    """Weights and losses of the coreset, the files of what was learned, and the history."""

    ids: np.ndarray
    weights: np.ndarray
    losses: np.ndarray
    history: Any
    files: dict[str, bytes] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    """What was found out about all labels, and how images became inputs."""


def learn(
    task: Task,
    options: Any = None,
    on_epoch: Callable[[int], object] = lambda _: None,
    device: Any = None,
    note: Callable[[str], object] = console.note,
) -> Outcome:
    """Let the method learn, going on from the state that was saved last.

    ``options`` are `StepOptions`, which tell a rank its share; rank 0 saves the state. What of the saved
    states is of no use is told by ``note``.
    """
    from safetensors.torch import save

    sets, settings = read_sets(task), task.settings
    run = Run(
        task.class_names,
        seed=settings.seed,
        untrained=settings.untrained,
        device=device,
        classifier=sets.classifier,
        options=options,
        states=SavedStates(task.writer, note, saves=options is None or options.rank == 0),
        on_epoch=on_epoch,
        note=note,
    )
    with blame("reweight", task.class_names):
        learned = settings.method.learn(sets.reference, sets.clean, run)
    files = {
        f"{name}.safetensors": save(savable(tensors)) for name, tensors in learned.state().items()
    }
    info = {**learned.found, **({"pictures": sets.pictures} if sets.pictures else {})}
    return Outcome(sets.ids, learned.weights, learned.losses, learned.history, files, info)
