"""What an unfinished run goes on from: tensors and plain values, with a checksum in a file beside.

A state that is damaged, or does not fit, counts as none: the one before it is used, else the run begins
anew. The description is written first, so that a state that is there can be checked.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cwerm.store.storage import Storage, at_once, parse_mapping

NAME = "state"
MOST_EPOCHS, MOST_STEPS = 2**31, 2**48  # more is nonsense
Note = Callable[[str], object]


@dataclass(frozen=True)
class Saved:
    """A state by its path without suffix, and how far it had come."""

    path: str
    epochs: int
    sha256: str
    steps: int = 0
    """Of the epoch after these."""


def dump(state: dict[str, Any], epochs: int, steps: int = 0) -> tuple[bytes, bytes]:
    """The bytes of the description and of the state."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    description = {"sha256": hashlib.sha256(data).hexdigest(), "epochs": epochs, "steps": steps}
    return json.dumps(description).encode(), data


def write(storage: Storage, path: str, state: dict[str, Any], epochs: int) -> None:
    """Put a state and its description in place of those that were there."""
    put(storage, path, dump(state, epochs))


def put(storage: Storage, path: str, dumped: tuple[bytes, bytes]) -> None:
    """As `write`, of what `dump` gave."""
    description, data = dumped
    storage.write_bytes(f"{path}.json", description)
    storage.write_bytes(f"{path}.pt", data)


def write_files(folder: str, state: dict[str, Any], epochs: int) -> None:
    """As `write`, to a local folder."""
    description, data = dump(state, epochs)
    Path(folder, f"{NAME}.json").write_bytes(description)
    Path(folder, f"{NAME}.pt").write_bytes(data)


def find(storage: Storage, paths: list[str], note: Note) -> list[Saved]:
    """Those of the states that are described, the most advanced first; damage is told by ``note``."""
    found = []
    for path, text in zip(paths, at_once(partial(_described, storage), paths), strict=True):
        if text is None:
            if storage.size(f"{path}.pt") is not None:
                note(f"{path}.pt has no checksum, and counts as none")
            continue
        try:
            about = parse_mapping(text)
            epochs, steps, digest = about["epochs"], about.get("steps", 0), about["sha256"]
            if (
                type(epochs) is not int
                or type(steps) is not int
                or not 0 <= epochs <= MOST_EPOCHS
                or not 0 <= steps <= MOST_STEPS
                or not isinstance(digest, str)
            ):
                raise ValueError("no number of epochs or no checksum")
            found.append(Saved(path, epochs, digest, steps))
        except (ValueError, KeyError) as error:
            note(f"{path}.json is damaged ({error}), and counts as none")
    return sorted(found, key=lambda saved: (saved.epochs, saved.steps, saved.path), reverse=True)


def _described(storage: Storage, path: str) -> bytes | None:
    try:
        return storage.read_bytes(f"{path}.json")
    except FileNotFoundError:
        return None


def intact(storage: Storage, saved: list[Saved], note: Note) -> Iterator[tuple[Saved, bytes]]:
    """Those states, with their bytes, that have their checksum."""
    for one in saved:
        try:
            data = storage.read_bytes(f"{one.path}.pt")
        except FileNotFoundError:
            continue  # described, and then interrupted
        if hashlib.sha256(data).hexdigest() == one.sha256:
            yield one, data
        else:
            note(f"{one.path}.pt is damaged, and counts as none")


def load(
    storage: Storage, saved: list[Saved], note: Note, device: Any = "cpu"
) -> Iterator[tuple[Saved, dict[str, Any]]]:
    """The states that can be read, on ``device``."""
    import torch

    for one, data in intact(storage, saved, note):
        try:
            state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        except Exception as error:  # whatever a file of something else makes torch raise
            note(f"{one.path}.pt can't be read ({type(error).__name__}), and counts as none")
            continue
        if isinstance(state, dict):
            yield one, state
        else:
            note(f"{one.path}.pt is no state, and counts as none")
