"""Parts of a store that is far away, kept on this machine's disk up to a bound, for all processes of a user.

What a stage writes is kept, too, as the next one reads it. An epoch reads every part once, so that what was
used last is no better than anything else: where the cache is full, nothing more comes in, but in place of
what nobody has read for a day.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["PartCache"]

UNUSED_SECONDS = 24 * 3600.0
KEPT_FREE = 2 * 2**30  # bytes of the disk that are left to others
LOOK_SECONDS = 10.0  # from one look at what other processes keep to the next


class PartCache:
    """Bytes by their SHA-256, as files of a folder, up to `most_bytes` in all.

    What can't be read or written there is no more than time lost.
    """

    def __init__(self, most_bytes: int, folder: Path | None = None) -> None:
        self.most_bytes, self._folder = most_bytes, folder
        self._held, self._added, self._looked = 0, 0, -math.inf

    def __reduce__(self) -> Any:
        return PartCache, (self.most_bytes, self._folder)

    @property
    def folder(self) -> Path:
        """The one that was given, or that of the user of this process on this machine."""
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return self._folder or Path(cache, "cwerm", "parts")

    def get(self, checksum: str) -> bytes | None:
        """The bytes that have this checksum, where they are kept; others are removed."""
        if not self.most_bytes:
            return None
        path = self.folder / checksum
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            if hashlib.sha256(data).hexdigest() == checksum:
                os.utime(path)
                return data
            path.unlink()
        return None

    def put(self, checksum: str, data: bytes) -> None:
        """Keep bytes that have this checksum, where there is room."""
        if not self.most_bytes or not self.folder.is_absolute():
            return
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._room_for(len(data)):
                return
            new = self.folder / f"{uuid.uuid4().hex}.new"
            try:
                new.write_bytes(data)
                new.replace(self.folder / checksum)
                self._added += len(data)
            finally:
                new.unlink(missing_ok=True)

    def _room_for(self, size: int) -> bool:
        """Whether so much more fits, if need be in place of what has not been used for long."""
        is_old = time.monotonic() - self._looked > LOOK_SECONDS
        if is_old or (self._added and self._over(size) > 0):
            self._held = sum(entry.stat().st_size for entry in os.scandir(self.folder))
            self._added, self._looked = 0, time.monotonic()
            if (over := self._over(size)) > 0:
                self._held -= self._remove_unused(over)
        free = shutil.disk_usage(self.folder).free
        return self._over(size) <= 0 and free - size >= KEPT_FREE

    def _over(self, size: int) -> int:
        """Bytes by which so much more would be over the bound, as far as is known."""
        return self._held + self._added + size - self.most_bytes

    def _remove_unused(self, wanted: int) -> int:
        """Bytes that went, the longest unused first."""
        since, gone = time.time() - UNUSED_SECONDS, 0
        for entry in sorted(os.scandir(self.folder), key=lambda entry: _used(entry.stat())):
            found = entry.stat()
            if gone >= wanted or _used(found) > since:
                break
            os.unlink(entry.path)
            gone += found.st_size
        return gone


def _used(found: os.stat_result) -> float:
    return found.st_mtime
