"""Digests of local files' content, remembered on this machine for as long as a file does not change.

Each folder of data has a file of its own in the user's cache folder, replaced as a whole: of two writers
the last one counts. A file there that is damaged or can't be written is no more than time lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.filesize import decimal
from rich.markup import escape

from cwerm.data.files.reading import patiently
from cwerm.errors import UserError, shown
from cwerm.terminal import console

THREADS = 16
BLOCK = 2**20
MOST_FILES, MOST_BYTES = 100, 2**26  # that a thread takes at a time
WORTH_SECONDS = 1.0  # what takes longer is remembered, and told
# The clock of a file system is this coarse at worst: a file changed just before it was hashed may be
# changed again without a new time.
SETTLED_SECONDS = 2.0
FORMAT = "cwerm digests 1"

State = tuple[int, int, int, int]


def state_of(found: os.stat_result) -> State:
    """Size, times of change of content and of anything else, inode: a changed file has another one."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def digests(root: str, paths: Sequence[str]) -> dict[str, tuple[str, State]]:
    """SHA-256 of the files' content and their state, by path below ``root``.

    Raises:
        UserError: a file can't be read, or is being written.
    """
    started, began = time.time(), time.monotonic()
    memory = _Memory(root)
    known = memory.read()
    with _Reader(root) as reader:
        states = dict(reader.states(paths))
        found = {
            path: (known[path][0], state)
            for path, state in states.items()
            if path in known and known[path][1] == state
        }
        todo = [path for path in paths if path not in found]
        size = sum(states[path][0] for path in todo)
        with console.progress(size, "hash") as advance:
            for path, digest, state in reader.hashed(todo, states):
                found[path] = digest, state
                advance(state[0])
    seconds = time.monotonic() - began
    if todo and seconds > WORTH_SECONDS:
        limit = (started - SETTLED_SECONDS) * 1e9
        settled = {path: e for path, e in found.items() if max(e[1][1], e[1][2]) < limit}
        # of other sources in the same folder, such as a second file
        others = {path: e for path, e in known.items() if path not in found}
        there = {path: e for path, e in others.items() if os.path.exists(f"{root}/{path}")}
        outcome = memory.write({**there, **settled})
        where = escape(shown(root))
        console.note(f"hashed {decimal(size)} of '{where}' in {seconds:.1f} s; {outcome}")
    return found


def changed(root: str, seen: dict[str, tuple[str, State]]) -> str | None:
    """A file that no longer has the content that `digests` saw, None where all have.

    Raises:
        UserError: a file is gone, or can't be read.
    """
    with _Reader(root) as reader:
        states = dict(reader.states([*seen]))
        touched = [path for path, state in states.items() if state != seen[path][1]]
        for path, digest, _ in reader.hashed(touched, states):
            if digest != seen[path][0]:
                return path
    return None


class _Reader:
    """Threads that look at files and hash them; they stop where something goes wrong."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.pool = ThreadPoolExecutor(THREADS)
        self.stopped = threading.Event()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def states(self, paths: Sequence[str]) -> Iterator[tuple[str, State]]:
        """The states of files, in their order."""

        def look(some: Sequence[str]) -> list[tuple[str, State]]:
            return [(path, self._state(path)) for path in some if not self.stopped.is_set()]

        slices = [paths[at : at + MOST_FILES] for at in range(0, len(paths), MOST_FILES)]
        for found in self.pool.map(look, slices):
            yield from found

    def hashed(
        self, paths: Sequence[str], states: dict[str, State]
    ) -> Iterator[tuple[str, str, State]]:
        """Digests of files, in their order, with the states in which they were read."""

        def read(some: list[str]) -> list[tuple[str, str, State]]:
            return [(path, *self._hash(path)) for path in some]

        batches: list[list[str]] = []
        held = MOST_BYTES
        for path in paths:
            if held >= MOST_BYTES or len(batches[-1]) >= MOST_FILES:
                batches.append([])
                held = 0
            batches[-1].append(path)
            held += states[path][0]
        for found in self.pool.map(read, batches):
            yield from found

    def _state(self, path: str) -> State:
        where = os.path.join(self.root, path)
        return state_of(patiently(lambda: os.stat(where), shown(where)))

    def _hash(self, path: str) -> tuple[str, State]:
        where = os.path.join(self.root, path)

        def read() -> tuple[str, State]:
            digest, block = hashlib.sha256(), bytearray(BLOCK)
            with open(where, "rb", buffering=0) as file:
                before = state_of(os.fstat(file.fileno()))
                while not self.stopped.is_set() and (length := file.readinto(block)):
                    digest.update(memoryview(block)[:length])
                if state_of(os.fstat(file.fileno())) != before:
                    raise UserError(
                        f"data.source: '{shown(where)}' is being written; wait until it is whole, and "
                        "run again"
                    )
            return digest.hexdigest(), before

        return patiently(read, shown(where))


class _Memory:
    """The digests of one folder, as they were when it was hashed last."""

    def __init__(self, root: str) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:20]
        self.path = Path(cache, "cwerm", "digests", f"{name}.json")

    def read(self) -> dict[str, tuple[str, State]]:
        """All that is remembered; nothing where the file is missing or damaged."""
        try:
            head, _, body = self.path.read_bytes().partition(b"\n")
            if head.decode() != _head(body):
                return {}
            return {path: (digest, (*state,)) for path, digest, state in json.loads(body)}
        except (OSError, ValueError, TypeError):
            return {}

    def write(self, entries: dict[str, tuple[str, State]]) -> str:
        """Remember these and nothing else; what became of it, for a person."""
        body = json.dumps([[path, *entry] for path, entry in entries.items()]).encode()
        partial = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        if not self.path.is_absolute():
            return "not remembered, as there is no home folder"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(_head(body).encode() + b"\n" + body)
                partial.replace(self.path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            return f"not remembered, as '{self.path.parent}' can't be written ({error.strerror})"
        return "remembered for next time"


def _head(body: bytes) -> str:
    return f"{FORMAT} {hashlib.sha256(body).hexdigest()}"
