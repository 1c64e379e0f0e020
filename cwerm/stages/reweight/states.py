"""The states that an unfinished reweighting goes on from."""

from __future__ import annotations

from cwerm.runtime import saved_state
from cwerm.store.artifacts import Writer
from cwerm.terminal import console


def state_paths(writer: Writer) -> list[str]:
    """Where an unfinished run keeps its last two states, without suffixes."""
    folder = f"artifacts/{writer.stage}/{writer.key}"
    return [f"{folder}/{saved_state.NAME}", f"{folder}/{saved_state.NAME}-2"]


def has_state(writer: Writer) -> bool:
    """Whether an earlier attempt left a state that is whole; says so of those that are not."""
    found = saved_state.find(writer.storage, state_paths(writer), console.note)
    return any(True for _ in saved_state.intact(writer.storage, found, console.note))


def forget_states(writer: Writer) -> None:
    """Remove what an unfinished run would go on from."""
    for path in state_paths(writer):
        for suffix in (".pt", ".json"):
            writer.storage.delete(path + suffix)
