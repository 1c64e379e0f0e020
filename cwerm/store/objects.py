"""What every storage offers: whole objects by relative path."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cwerm.errors import UserError

AT_ONCE = 16  # requests that wait for their answers
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it: path below the root, bytes, time of change in nanoseconds.

    ``tag`` is the ETag by which a bucket tells its content from any other, "" in a local folder.
    """

    path: str
    size: int
    modified: int
    tag: str = ""


@dataclass(frozen=True)
class Upload:
    """An object that goes up in parts and is not complete; its size is that of the parts there are."""

    entry: Entry
    identity: str


def parse_mapping(data: bytes) -> dict[str, Any]:
    """The JSON object that ``data`` is, with values that nobody has checked.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__} instead of an object")
    return found


def at_once(ask: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """As `map`, with several requests of a storage at a time; raises what the first that fails does."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(ask, *arguments))


class Storage(ABC):
    """Objects by relative path below a root; picklable, so that workers open their own.

    A write is atomic: a reader sees all of it or nothing, and ``if_absent`` lets exactly one of several
    writers win.
    """

    far = False
    """Whether each request travels over a network."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def uri(self, path: str) -> str:
        """The address of ``path`` for people and other tools."""
        return f"{self.root}/{path}"

    def check_writable(self) -> None:
        """Write and remove a small object.

        Raises:
            UserError: the storage can't be written.
        """
        probe = f".write-test-{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"")
            self.delete(probe)
        except Exception as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            text = getattr(cause, "strerror", None) or str(error).splitlines()[0]
            reason = text.partition(";")[0].removeprefix(f"{self.uri(probe)}: ")
            raise UserError(
                f"storage: '{self.root}' can't be written ({reason}); "
                "check that it exists and that you may write there, or choose another with --storage"
            ) from error

    def clock(self) -> int:
        """The time by the storage's own clock, in nanoseconds as in an `Entry`.

        Raises:
            UserError: the storage can't be written, or does not answer.
        """
        probe = f".clock.{uuid.uuid4().hex}"
        self.write_bytes(probe, b"")
        try:
            entry = self.stat(probe)
        finally:
            self.delete(probe)
        if entry is None:
            raise UserError(
                f"storage: what was written to '{self.root}' is not there; look at it again"
            )
        return entry.modified

    def size(self, path: str) -> int | None:
        """The object's size in bytes, None where there is none."""
        entry = self.stat(path)
        return None if entry is None else entry.size

    def sizes(self, folder: str, paths: Iterable[str]) -> dict[str, int]:
        """Of these paths below a folder, those that are there, with their sizes in bytes.

        What lies in one subfolder is asked for with one request a thousand.
        """
        wanted, found = set(paths), dict[str, int]()
        for name in sorted({path.partition("/")[0] for path in wanted if "/" in path}):
            for entry in self.walk(f"{folder}/{name}"):
                found[entry.path.removeprefix(f"{folder}/")] = entry.size
        for path in wanted - found.keys():  # a listing may come late
            size = self.size(f"{folder}/{path}")
            if size is not None:
                found[path] = size
        return {path: size for path, size in found.items() if path in wanted}

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """The object's content; ``FileNotFoundError`` where there is none."""

    @abstractmethod
    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write the object in one piece; with ``if_absent``, False where it existed already."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Copy a local file to ``path``."""

    @abstractmethod
    def stat(self, path: str) -> Entry | None:
        """Size and time of change, None where there is no such object."""

    @abstractmethod
    def walk(self, folder: str, start: str = "") -> Iterator[Entry]:
        """Everything below a folder, what lies in one subfolder in one run.

        Of what is in the folder only what begins with ``start``. For data sources, the garbage collection and
        to ask for many objects at once: what an artifact holds, its manifest says.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove one object, if it is there."""

    def unfinished_uploads(self, folder: str) -> Iterator[Upload]:  # noqa: ARG002
        """Uploads below a folder that were begun and neither completed nor aborted."""
        return iter(())

    def abort_upload(self, upload: Upload) -> None:  # noqa: ARG002
        """Remove the parts of an unfinished upload."""
        raise AssertionError("there are none here")

    @abstractmethod
    def remove_empty_folders(self, folder: str) -> None:
        """Remove ``folder`` and what is below it, as far as no file is left in them."""
