"""What this process has read and found to have its checksum: not read again while it fits."""

from __future__ import annotations

import threading
from collections import OrderedDict

MOST_BYTES = 128 * 2**20
MOST_BYTES_EACH = 32 * 2**20


class Verified:
    """The last bytes that were read, by their checksum, up to a bound."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, checksum: str) -> bytes | None:
        """The bytes that have this SHA-256, where they are held."""
        with self._lock:
            if checksum in self._held:
                self._held.move_to_end(checksum)
            return self._held.get(checksum)

    def put(self, checksum: str, data: bytes) -> None:
        """Hold bytes that have this SHA-256; those not used for longest go first."""
        if len(data) > MOST_BYTES_EACH:
            return
        with self._lock:
            self._bytes += len(data) - len(self._held.pop(checksum, b""))
            self._held[checksum] = data
            while self._bytes > self.most_bytes:
                _, oldest = self._held.popitem(last=False)
                self._bytes -= len(oldest)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


VERIFIED = Verified()
