"""The states that an unfinished reweighting goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from cwerm.runtime.training import saved_state
from cwerm.store.writing import Writer
from cwerm.terminal import console

SAVE_SECONDS = 5.0  # between saved states, from which an interrupted run goes on


class SavedStates:
    """The last two states of one reweighting, saved in turns, so that the one before stays whole."""

    def __init__(self, writer: Writer, note: Callable[[str], object], saves: bool = True) -> None:
        self.storage, self.slots = writer.storage, state_paths(writer)
        self.note, self.saves = note, saves
        self.saved = time.monotonic()

    def load(self) -> Iterator[tuple[str, Any]]:
        """Names and states, the latest first; says which of them can't be read."""
        found = saved_state.find(self.storage, self.slots, self.note)
        for used, state in saved_state.load(self.storage, found, self.note):
            yield f"{used.path}.pt", state

    def save(self, state: Callable[[], Any], epoch: int) -> None:
        """Keep the state, if it is time; on rank 0 alone."""
        if self.saves and time.monotonic() - self.saved > SAVE_SECONDS:
            saved_state.write(self.storage, self.slots[0], state(), epoch)
            self.slots.reverse()
            self.saved = time.monotonic()


def state_paths(writer: Writer) -> list[str]:
    """Where an unfinished run keeps its last two states, without suffixes."""
    folder = f"artifacts/{writer.stage}/{writer.key}"
    return [f"{folder}/{saved_state.NAME}", f"{folder}/{saved_state.NAME}-2"]


def has_state(writer: Writer) -> bool:
    """Whether an earlier attempt left a state that is whole; says so of those that are not."""
    if writer.is_first:
        return False
    found = saved_state.find(writer.storage, state_paths(writer), console.note)
    return any(True for _ in saved_state.intact(writer.storage, found, console.note))


def forget_states(writer: Writer) -> None:
    """Remove what an unfinished run would go on from."""
    folder, _, start = state_paths(writer)[0].rpartition("/")
    for entry in [*writer.storage.walk(folder, start)]:
        writer.storage.delete(entry.path)
