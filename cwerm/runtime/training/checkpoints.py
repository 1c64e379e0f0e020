"""Checkpoints of a training, found by us: an index that Ray Train keeps of them is not read back.

Ray Train writes each to a folder of its own below ``runs/<name>/checkpoints/<key>/``. The last good one
counts, and one before it is kept.
"""

from __future__ import annotations

from typing import Any

from cwerm.runtime.training import saved_state
from cwerm.runtime.training.saved_state import Note, Saved
from cwerm.store.storage import Storage, at_once

KEPT = 2
INDEX = "checkpoint_manager_snapshot.json"


def forget_index(storage: Storage, folder: str) -> None:
    """Let Ray Train begin with no checkpoint: a damaged index would stop it, and an evil one misuse it."""
    storage.delete(f"{folder}/{INDEX}")


def forget(storage: Storage, folder: str) -> None:
    """Remove all of a training's, and Ray Train's index."""
    at_once(storage.delete, [entry.path for entry in storage.walk(folder)])
    storage.remove_empty_folders(folder.rpartition("/")[0])  # of all trainings of the run


def find(storage: Storage, folder: str, note: Note) -> list[Saved]:
    """The checkpoints in a training's folder, the most advanced first."""
    paths = [entry.path.rpartition(".") for entry in storage.walk(folder)]
    places = sorted({place for place, _, _ in paths if place.endswith(f"/{saved_state.NAME}")})
    return saved_state.find(storage, places, note)


def resume(worker: Any, ranks: Any, config: dict[str, Any]) -> bool:
    """Let each rank's worker take up the same last good checkpoint; False where there is none."""
    storage, folder = config["store"].storage, config["checkpoints"]

    def note(text: str) -> None:
        if ranks.rank == 0:
            config["board"].note.remote(text)

    found = find(storage, folder, note)
    for saved, state in saved_state.load(storage, found, note, ranks.device):
        try:
            worker.check(state)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            note(f"{saved.path}.pt does not fit ({error}), and counts as none")
            continue
        _agree(ranks, saved)
        worker.restore(state)
        if ranks.rank == 0:
            _remove_others(storage, folder, found, saved)
        return True
    _agree(ranks, None)
    return False


def _agree(ranks: Any, saved: Saved | None) -> None:
    """Stop where ranks have found different checkpoints, as while another attempt still writes one."""
    if any(other != saved for other in ranks.gather(saved)):
        raise RuntimeError("the workers found different checkpoints; they try again")


def _remove_others(storage: Storage, folder: str, found: list[Saved], used: Saved) -> None:
    """Remove damaged checkpoints after the one in use, and all before it but the next."""
    place = found.index(used)
    kept = {saved.path for saved in found[place : place + KEPT]}
    for saved in found:
        if saved.path not in kept:
            remove(storage, saved.path)


def remove(storage: Storage, path: str) -> None:
    """Remove the checkpoint of this path without suffix."""
    for suffix in (".json", ".pt"):
        storage.delete(path + suffix)
    storage.remove_empty_folders(path.rpartition("/")[0])
