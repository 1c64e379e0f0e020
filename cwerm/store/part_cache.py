"""Parts of a store that is far away, kept on this machine's disk up to a bound, for all processes of a user.

An epoch reads every part once, so that what was used last is no better than anything else: where the cache is
full, nothing more comes in, but in place of what nobody has read for a day.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

__all__ = ["PartCache"]

UNUSED_SECONDS = 24 * 3600.0
KEPT_FREE = 2 * 2**30  # bytes of the disk that are left to others


class PartCache:
    """Bytes by their SHA-256, as files of a folder, up to `most_bytes` in all.

    What can't be read or written there is no more than time lost.
    """

    def __init__(self, most_bytes: int, folder: Path | None = None) -> None:
        self.most_bytes, self._folder = most_bytes, folder

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
            finally:
                new.unlink(missing_ok=True)

    def _room_for(self, size: int) -> bool:
        """Whether so much more fits, if need be in place of what has not been used for long."""
        entries = sorted((entry.stat() for entry in os.scandir(self.folder)), key=_used)
        held = sum(entry.st_size for entry in entries)
        if held + size > self.most_bytes:
            held -= self._remove_unused(held + size - self.most_bytes)
        free = shutil.disk_usage(self.folder).free
        return held + size <= self.most_bytes and free - size >= KEPT_FREE

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
