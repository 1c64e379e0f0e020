"""What a storage holds and nothing refers to: found, listed, and removed when asked.

Listings only propose. What an artifact is made of, its manifest says, and before the commit its part
markers; both are read after the listing, so that what was published meanwhile counts as referred to.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from cwerm.errors import UserError
from cwerm.store.artifacts import ArtifactStore, CorruptArtifactError, File
from cwerm.store.local import LocalStorage
from cwerm.store.objects import Entry, Storage, Upload
from cwerm.store.storage import open_storage
from cwerm.store.writing import parse_marker
from cwerm.terminal import console

ATTEMPT = re.compile(r"[0-9a-f]{12}")
STATE = re.compile(r"state(-2)?\.(pt|json)")
MARKER = re.compile(r"parts/[^/.][^/]*\.json")
# The name of a write to a local folder until it is whole.
PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")
CHECKPOINTS = re.compile(r"runs/[^/]+/checkpoints/(?P<reweight>reweight-)?(?P<key>[0-9a-f]+)")
WHOLE_FOLDERS = ("lost attempt", "intermediate results", "claims", "attempts", "checkpoints")


@dataclass(frozen=True)
class Garbage:
    """One thing that is of no use: some files of a folder, in the order to delete them, or an upload."""

    kind: str
    path: str
    files: tuple[Entry, ...] = ()
    upload: Upload | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(e.size for e in self.files) + (self.upload.entry.size if self.upload else 0)


def collect_garbage(storage: str, *, delete: bool, older_than_hours: float) -> list[Garbage]:
    """Print what nothing refers to, and with ``delete`` remove it; what it is.

    A thing counts where its newest file is older than ``older_than_hours``, which should be longer than
    any attempt that still runs is silent. What an unfinished stage or training could go on from stays:
    published parts, saved states and checkpoints of what is not committed.

    Raises:
        UserError: there is no such storage, or it does not answer.
    """
    store = ArtifactStore(open_storage(storage))
    if isinstance(store.storage, LocalStorage) and not Path(store.storage.root).is_dir():
        raise UserError(f"{storage}: no such folder; give a job's storage, such as cwerm-store")
    next(store.storage.walk("artifacts"), None)  # a bucket that is none is known before any write
    # what the clock's last tick saw is older: buckets tell seconds
    limit = _now(store.storage) + 1 - int(older_than_hours * 3600 * 1e9)
    found = []
    for thing in find_garbage(store, limit):
        files = f"  {len(thing.files)} files" if len(thing.files) > 1 else ""
        line = f"{thing.kind:<20}  {decimal(thing.size):>10}  {thing.path}{files}"
        console.out.print(line, soft_wrap=True, markup=False)
        if delete:
            remove(store.storage, thing)
        found.append(thing)
    outcome = "removed" if delete else "left in place; --delete removes it"
    total = decimal(sum(thing.size for thing in found))
    text = f"{'total':<20}  {total:>10}  {outcome}" if found else "nothing to remove"
    console.out.print(text, soft_wrap=True)
    return found


def _now(storage: Storage) -> int:
    """The time by the clock that dates what is in the storage, so that this machine's may be off."""
    try:
        return storage.clock()
    except UserError as error:
        console.note(
            f"age is told by this machine's clock, as no time was to be had there: {error}"
        )
        return time.time_ns()


def find_garbage(store: ArtifactStore, limit: int) -> Iterator[Garbage]:
    """All things last changed before ``limit``, in nanoseconds since 1970."""
    entries = store.storage.walk("artifacts")
    for folder, group in itertools.groupby(entries, lambda entry: _top(entry.path, 3)):
        found = list(group)
        if folder.count("/") == 2 and found[0].path != folder:
            yield from _of_artifact(store, folder, found, limit)
    entries = store.storage.walk("runs")
    for folder, group in itertools.groupby(entries, lambda entry: _top(entry.path, 4)):
        yield from _of_run(store, folder, list(group), limit)
    for room in ("artifacts", "runs"):
        for upload in store.storage.unfinished_uploads(room):
            if upload.entry.modified < limit:
                yield Garbage("unfinished upload", upload.entry.path, upload=upload)


def remove(storage: Storage, thing: Garbage) -> None:
    """Delete a thing's files, one after the other."""
    if thing.upload:
        storage.abort_upload(thing.upload)
    for entry in thing.files:
        storage.delete(entry.path)
    if thing.kind in WHOLE_FOLDERS:
        storage.remove_empty_folders(thing.path)


def _of_artifact(
    store: ArtifactStore, folder: str, entries: list[Entry], limit: int
) -> Iterator[Garbage]:
    _, stage, key = folder.split("/")
    try:
        artifact = store.load(stage, key)
    except CorruptArtifactError as error:
        console.out.print(f"left as it is: {error}", soft_wrap=True, markup=False)
        return
    markers = [entry for entry in entries if MARKER.fullmatch(_below(folder, entry))]
    if artifact is None:
        referred = {file.path for file in _published(store.storage, markers)}
    else:
        parts = itertools.chain.from_iterable(artifact.tables.values())
        referred = {file.path for file in itertools.chain(parts, artifact.files.values())}
        # before the files that they may name: a marker is no use without its file
        yield from _thing("part markers", f"{folder}/parts", markers, limit)
        states = [entry for entry in entries if STATE.fullmatch(_below(folder, entry))]
        yield from _thing("saved state", f"{folder}/state.pt", states, limit)
        for kind in ("claims", "attempts"):
            of_kind = [e for e in entries if _below(folder, e).startswith(f"{kind}/")]
            yield from _thing(kind, f"{folder}/{kind}", of_kind, limit)
    for name, group in itertools.groupby(entries, lambda entry: _top(_below(folder, entry), 1)):
        attempt = list(group)
        if not ATTEMPT.fullmatch(name):
            yield from _interrupted(attempt, limit)
        elif all(entry.modified < limit for entry in attempt):
            lost = [entry for entry in attempt if _below(folder, entry) not in referred]
            yield from _of_attempt(f"{folder}/{name}", lost, whole=len(lost) == len(attempt))


def _of_attempt(folder: str, lost: list[Entry], whole: bool) -> Iterator[Garbage]:
    within = f"{folder}/unpublished/"
    unpublished = [entry for entry in lost if entry.path.startswith(within)]
    others = [entry for entry in lost if not entry.path.startswith(within)]
    if unpublished:
        yield Garbage("intermediate results", within.rstrip("/"), tuple(unpublished))
    if others:
        yield Garbage("lost attempt" if whole else "lost files", folder, tuple(others))


def _of_run(
    store: ArtifactStore, folder: str, entries: list[Entry], limit: int
) -> Iterator[Garbage]:
    found = CHECKPOINTS.fullmatch(folder)
    if found is None:
        yield from _interrupted(entries, limit)
        return
    stage = "reweight" if found["reweight"] else "train"
    try:
        is_committed = store.load(stage, found["key"]) is not None
    except CorruptArtifactError:
        return  # the training must be done again, and may go on from here
    if is_committed:
        # first the index by which Ray Train finds checkpoints: it must not name one that is gone
        by_depth = sorted(entries, key=lambda entry: entry.path.count("/"))
        yield from _thing("checkpoints", folder, by_depth, limit)


def _thing(kind: str, path: str, entries: list[Entry], limit: int) -> Iterator[Garbage]:
    if entries and all(entry.modified < limit for entry in entries):
        yield Garbage(kind, path, tuple(entries))


def _interrupted(entries: list[Entry], limit: int) -> Iterator[Garbage]:
    for entry in entries:
        if PARTIAL.fullmatch(entry.path.rpartition("/")[2]):
            yield from _thing("interrupted write", entry.path, [entry], limit)


def _published(storage: Storage, markers: list[Entry]) -> Iterator[File]:
    for marker in markers:
        try:
            published = parse_marker(storage.read_bytes(marker.path))
        except FileNotFoundError:
            continue
        if published is not None:
            yield published


def _top(path: str, names: int) -> str:
    return "/".join(path.split("/")[:names])


def _below(folder: str, entry: Entry) -> str:
    return entry.path[len(folder) + 1 :]
