"""One producer for each artifact: others that need it wait, and take over if it dies.

A claim is a small object in the artifact's folder. Claims are numbered, the highest counts, and a number
is written only if absent, so that one process gets it. Its owner writes it anew every few seconds; who
waits looks for a change by its own clock, as those of two hosts may differ. Nothing false follows where
a claim is lost to another process, as when a laptop sleeps: the commit lets one artifact win.

A claim also tells how long its owner has worked, so that an artifact counts the time of every attempt.
Of one that was killed its last claim stays; one that fails leaves a record instead.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any

from cwerm.errors import UserError
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.beside import WriteBehind
from cwerm.store.claims import owners, work_clock
from cwerm.store.claims.owners import Watch, parse, this_process, told
from cwerm.store.claims.work_clock import WorkClock
from cwerm.store.storage import Storage, at_once, hurry, parse_mapping
from cwerm.terminal import console

BEAT_SECONDS = 8.0
MOST_SECONDS = 1e9
JOIN_SECONDS = 2.0  # for a beat that is under way as a run ends early


@contextmanager
def claimed(
    store: ArtifactStore, stage: str, key: str, behind: WriteBehind | None = None
) -> Iterator[Artifact | None]:
    """Wait until the artifact is there or ours to make; gives the artifact, or None to make it.

    The claim on one that is made is given up ``behind`` what follows, where that is given.

    Raises:
        UserError: as `ArtifactStore.find`.
    """
    claims = _Claims(store.storage, f"artifacts/{stage}/{key}/claims")
    watch = Watch()
    taken = claims.take(1)  # as a rule nobody else is there, and this is all that is asked
    while not taken:
        # in this order: who commits gives its claim up only then
        number, claim = claims.highest()
        if store.committed(stage, key):
            yield store.find(stage, key)
            return
        if claim is None or watch.is_over(claim):
            if claim is not None:
                console.note(
                    f"{stage}: takes over from {told(claim)}{', which is gone' * bool(claim)}"
                )
            taken = claims.take(number + 1)
        elif watch.is_new(claim):
            console.note(f"{stage}: waits for {told(claim)}, which is making it")
        if not taken:
            time.sleep(owners.POLL_SECONDS)
    try:
        found = None
        if claims.alone():
            store.untouched.add((stage, key))
        else:
            store.untouched.discard((stage, key))
            # it may have been committed, and its claims removed, before ours was there
            asked = claims.earlier_seconds, partial(store.find, stage, key)
            store.earlier_seconds[stage, key], found = at_once(lambda ask: ask(), asked)
        with work_clock.running(claims.clock):
            yield found
    except BaseException as error:
        if not isinstance(error, Exception):
            hurry()
        # what went wrong, such as an outage of the storage, is told, not that it lasts
        with suppress(UserError, OSError):
            claims.release(committed=False)
            claims.record(refused=isinstance(error, UserError))
        raise
    release = partial(claims.release, committed=store.committed(stage, key))
    if behind is None:
        release()
    else:
        behind.write(release)


class _Claims:
    """The claims on one artifact, and the beat of ours."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self.storage, self.folder = storage, folder
        self.records = f"{folder.removesuffix('claims')}attempts"
        self.number = 0
        self.clock = WorkClock()
        self.beats, self.last_beat = 0, _now()
        self.recorded = False
        """Whether attempts before ours left records."""
        self.me = {"token": uuid.uuid4().hex, "host": socket.gethostname(), **this_process()}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def highest(self) -> tuple[int, dict[str, Any] | None]:
        """The claim that counts, and its number; 0 and None where there is none."""
        number, claim = 0, None
        while (found := self._read(number + 1)) is not None:
            number, claim = number + 1, found
        return number, claim

    def take(self, number: int) -> bool:
        """Make the claim of that number, unless another process did."""
        self.clock = WorkClock()
        if not self._write(number, if_absent=True):
            return False
        self.number = number
        self.thread.start()
        return True

    def alone(self) -> bool:
        """Whether our claim is all there is of the artifact."""
        folder = self.folder.removesuffix("/claims")
        there = islice(self.storage.walk(folder), 2)
        return [entry.path for entry in there] == [self._path(1)]

    def release(self, committed: bool) -> None:
        """Give our claim up, and with the artifact there those of the dead before us."""
        self.ended.set()
        self.thread.join(None if committed else JOIN_SECONDS)
        silent = max(now - then for now, then in zip(_now(), self.last_beat, strict=True))
        if silent > owners.SILENT_SECONDS / 2 and self._read(self.number + 1) is not None:
            return  # lost: without ours between them, the later claims could not be seen
        for number in range(self.number, 0 if committed else self.number - 1, -1):
            self.storage.delete(self._path(number))
        self.storage.remove_empty_folders(self.folder)
        if committed and self.recorded:
            for entry in self.storage.walk(self.records):
                self.storage.delete(entry.path)
            self.storage.remove_empty_folders(self.records)

    def record(self, refused: bool) -> None:
        """Leave the time that we have worked, unless we were refused before anything was made."""
        if (
            refused
            and next(self.storage.walk(self.records.removesuffix("/attempts")), None) is None
        ):
            return
        text = json.dumps({"seconds": self._seconds()}).encode()
        self.storage.write_bytes(f"{self.records}/{self.me['token']}.json", text)

    def earlier_seconds(self) -> float:
        """How long those before us have worked on the artifact."""
        records = [entry.path for entry in self.storage.walk(self.records)]
        self.recorded = bool(records)
        paths = [*(self._path(number) for number in range(1, self.number)), *records]
        return sum(_seconds_in(self.storage.read_bytes(path)) for path in paths)

    def _seconds(self) -> float:
        return round(self.clock.seconds, 3)

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_SECONDS):
            # an outage of the storage stops the readers of the beat as well
            with suppress(Exception):
                self._write(self.number)

    def _write(self, number: int, *, if_absent: bool = False) -> bool:
        self.beats += 1
        claim = {**self.me, "beat": self.beats, "seconds": self._seconds()}
        text, began = json.dumps(claim).encode(), _now()
        won = self.storage.write_bytes(self._path(number), text, if_absent=if_absent)
        self.last_beat = began
        return won

    def _read(self, number: int) -> dict[str, Any] | None:
        try:
            return parse(self.storage.read_bytes(self._path(number)))
        except FileNotFoundError:
            return None

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number:06d}.json"


def _now() -> tuple[float, float]:
    """By two clocks: one stands still while a machine sleeps, the other may be set back."""
    return time.time(), time.monotonic()


def _seconds_in(record: bytes) -> float:
    """What a claim or a record says, which nobody has checked; nothing where it makes no sense."""
    try:
        seconds = parse_mapping(record).get("seconds")
    except ValueError:
        return 0.0
    if isinstance(seconds, int | float) and 0 <= seconds < MOST_SECONDS:
        return float(seconds)
    return 0.0
