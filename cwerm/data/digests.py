"""Digests of local files' content, remembered on this machine for as long as a file does not change.

Each folder of data has a file of its own in the user's cache folder, replaced as a whole: of two writers
the last one counts. A file there that is damaged or can't be written is no more than time lost.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from cwerm import console
from cwerm.data.reading import patiently
from cwerm.errors import UserError, shown

THREADS = 16
BLOCK = 2**20
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
    with _pool() as pool:
        states = dict(zip(paths, pool.map(functools.partial(_state, root), paths), strict=True))
        found = {
            path: (known[path][0], state)
            for path, state in states.items()
            if path in known and known[path][1] == state
        }
        todo = [path for path in paths if path not in found]
        size = sum(states[path][0] for path in todo)
        with console.progress(size, "hash") as advance:
            for path, entry in zip(
                todo, pool.map(functools.partial(_hash, root), todo), strict=True
            ):
                found[path] = entry
                advance(entry[1][0])
    seconds = time.monotonic() - began
    if todo and seconds > WORTH_SECONDS:
        limit = (started - SETTLED_SECONDS) * 1e9
        settled = {path: e for path, e in found.items() if max(e[1][1], e[1][2]) < limit}
        outcome = memory.write(settled)
        console.note(f"hashed {decimal(size)} of '{root}' in {seconds:.1f} s; {outcome}")
    return found


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads; what is still to do is dropped where something goes wrong."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def same_content(root: str, path: str, digest: str, state: State) -> bool:
    """Whether the file still has its content; read again only where its state is another."""
    return _state(root, path) == state or _hash(root, path)[0] == digest


def _state(root: str, path: str) -> State:
    where = os.path.join(root, path)
    return state_of(patiently(lambda: os.stat(where), shown(where)))


def _hash(root: str, path: str) -> tuple[str, State]:
    where = os.path.join(root, path)

    def read() -> tuple[str, State]:
        digest, block = hashlib.sha256(), bytearray(BLOCK)
        with open(where, "rb", buffering=0) as file:
            before = state_of(os.fstat(file.fileno()))
            while length := file.readinto(block):
                digest.update(memoryview(block)[:length])
            if state_of(os.fstat(file.fileno())) != before:
                raise UserError(
                    f"data.source: '{shown(where)}' is being written; wait until it is whole, and run again"
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
