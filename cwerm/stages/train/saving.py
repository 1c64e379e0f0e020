"""A training saved in mid-epoch, now and then; it goes up to the store while the training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cwerm.algorithms.training.fit import Training
from cwerm.runtime.training import checkpoints, saved_state

if TYPE_CHECKING:
    from torch import Tensor

FIRST_LOOK = 16  # steps, after which the time of a step is known


class SavesWithin:
    """Called after each step, it saves where so many minutes have passed since the last checkpoint.

    All ranks save at the same step, by rank 0's clock; they ask for it at steps that are far apart.
    """

    def __init__(
        self, training: Training, state: Callable[[], dict[str, Any]], config: dict[str, Any]
    ) -> None:
        self.training, self.state = training, state
        self.seconds = 60 * config["checkpoint_minutes"]
        self.storage, self.folder = config["store"].storage, config["checkpoints"]
        self._uploads = ThreadPoolExecutor(1, "upload")
        self._upload: Future[None] | None = None
        self._written: list[str] = []
        self._since, self._steps, self._look = time.monotonic(), 0, FIRST_LOOK

    def __enter__(self) -> SavesWithin:
        return self

    def __exit__(self, *_: object) -> None:
        self._uploads.shutdown(wait=True)

    def __call__(self, epoch: int, step: int, loss: Tensor) -> None:
        """Look at the clock at times, and save where it is time."""
        del loss
        self._steps += 1
        if self._steps < self._look:
            return
        passed = self.training.ranks.gather(time.monotonic() - self._since)[0]
        if passed >= self.seconds and step + 1 < self.training.batches.steps:
            self._save(epoch, step + 1)
            steps = max(1, int(self._steps * self.seconds / passed))
            self._since, self._steps, self._look = time.monotonic(), 0, steps
        else:
            left = self._steps * max(0.0, self.seconds - passed) / max(passed, 1e-9)
            self._look = self._steps + max(1, min(self._steps, int(left)))

    def begin_anew(self) -> None:
        """After the checkpoint of an epoch: those in it are no longer needed."""
        self._since, self._steps = time.monotonic(), 0
        self._finish()
        self._remove(0)

    def _save(self, epoch: int, step: int) -> None:
        state = self.state()
        if self.training.ranks.rank:
            return
        dumped = saved_state.dump(state, epoch, step)  # now: the next step changes it
        self._finish()
        path = f"{self.folder}/within_{epoch + 1:06d}_{step:09d}/{saved_state.NAME}"
        self._upload = self._uploads.submit(saved_state.put, self.storage, path, dumped)
        self._written.append(path)
        self._remove(checkpoints.KEPT)

    def _finish(self) -> None:
        """Wait for the last one; raises what kept it from being written."""
        if self._upload is not None:
            self._upload.result()
            self._upload = None

    def _remove(self, kept: int) -> None:
        """All of this attempt but the last ones."""
        while len(self._written) > kept:
            checkpoints.remove(self.storage, self._written.pop(0))
