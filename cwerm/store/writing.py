"""How an artifact comes into the store: part by part, and the manifest last.

Data goes under a fresh attempt prefix. Each finished part of a long stage is published by a small
marker, so that a later attempt need not make it again; the manifest, put last and only if absent, publishes
the whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cwerm.store import schema
from cwerm.store.artifacts import ArtifactStore, CorruptArtifactError, Held
from cwerm.store.claims import work_clock
from cwerm.store.manifest import Artifact, File, folder_of
from cwerm.store.storage import Storage, at_once, parse_mapping

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Writer", "marker_path", "parse_marker"]


class Writer:
    """Makes one artifact: parts and files, then `commit`. Picklable, so that workers write parts."""

    def __init__(
        self, store: ArtifactStore, stage: str, key: str, parameters: dict[str, Any]
    ) -> None:
        self.storage, self.near = store.storage, store.near
        self.stage, self.key, self.parameters = stage, key, parameters
        self.attempt = uuid.uuid4().hex[:12]
        self.clock = work_clock.current()
        self.earlier_seconds = store.earlier_seconds.get((stage, key), 0.0)
        self._files: dict[str, File] = {}
        self._commits = store.commits
        self.is_first = (stage, key) in store.untouched
        """No other attempt has left anything."""
        self._markers = _Markers(f"{folder_of(stage, key)}/parts", none=self.is_first)

    def finished_part(self, table: str, index: int, contents: str) -> File | None:
        """The part as this or an earlier attempt published it, None where it must still be made.

        It counts where it was made for the same ``contents`` and all its bytes are there. Which parts are
        published is looked up for many at once.
        """
        name = marker_name(table, index)
        if not self._markers.has(self.storage, name):
            return None
        return self._published(table, index, contents)

    def _published(self, table: str, index: int, contents: str) -> File | None:
        """As `finished_part`, by what is there now."""
        try:
            file = parse_marker(self.storage.read_bytes(self._marker(table, index)))
        except FileNotFoundError:
            return None
        if file is None or file.contents != contents:
            return None
        try:
            folder = folder_of(self.stage, self.key)
            ArtifactStore(self.storage)._read_table(folder, file, [], table)
        except CorruptArtifactError:
            return None
        return file

    def write_part(self, table: str, index: int, rows: pa.Table, contents: str = "") -> File:
        """Write one part and publish it; where another writer was first with the same, its part counts.

        Args:
            table: the name of the table, which is that of its schema.
            index: the part's place in the table.
            rows: what to write.
            contents: a digest of what the part must hold, from which `finished_part` tells whether it
                can be taken over. Without one it is not published, and no later attempt takes it over.
        """
        made = self._put_table(f"{table}-{index:05d}.parquet", table, rows, self.near)
        if not contents:
            return made
        file = replace(made, contents=contents)
        marker = json.dumps(asdict(file)).encode()
        if not self.storage.write_bytes(self._marker(table, index), marker, if_absent=True):
            published = self._published(table, index, contents)
            if published:
                return published
            self.storage.write_bytes(self._marker(table, index), marker)
        self._markers.add(marker_name(table, index))
        return file

    def write_unpublished(
        self,
        table: str,
        index: int,
        rows: pa.Table,
        *,
        name: str | None = None,
        near: bool = False,
    ) -> File:
        """Write one part of an intermediate result, which no other attempt will use.

        ``name`` tells apart several results of one table's schema; with ``near`` it is kept on this node's
        disk, too. What is read once is made fast to write and read, not small.
        """
        path = f"unpublished/{name or table}-{index:05d}.parquet"
        place = self.near if near else None
        return self._put_table(path, table, rows, place, compression="lz4", use_dictionary=False)

    def read_unpublished(self, file: File, columns: list[str] | None = None) -> pa.Table:
        """What `write_unpublished` wrote, or some columns of it."""
        store, folder = ArtifactStore(self.storage), folder_of(self.stage, self.key)
        return store._parse_table(folder, file, store._read_once(folder, file, self.near), columns)

    def delete_unpublished(self, file: File) -> None:
        """Remove what `write_unpublished` wrote and nobody will read again."""
        self.storage.delete(f"{folder_of(self.stage, self.key)}/{file.path}")

    def write_file(self, name: str, data: bytes) -> File:
        """Write one named file, to be published by `commit`."""
        self._files[name] = self._put(name, data, near=self.near)
        return self._files[name]

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """As `write_file`, several at a time."""
        at_once(self.write_file, files.keys(), files.values())

    def commit(
        self,
        tables: dict[str, list[File]],
        info: dict[str, Any] | None = None,
        *,
        least_seconds: float = 0.0,
    ) -> Artifact:
        """Publish the artifact; where another writer was first, its artifact is the result.

        Its seconds are those of all attempts, without what they waited for workers, and no less than
        ``least_seconds``, which are known to be in it.
        """
        seconds = self.earlier_seconds + self.clock.seconds
        artifact = Artifact(
            stage=self.stage,
            key=self.key,
            tables={name: tuple(parts) for name, parts in tables.items()},
            files=dict(sorted(self._files.items())),
            info=info or {},
            seconds=max(seconds, least_seconds),
        )
        manifest = {**asdict(artifact), "parameters": self.parameters, "versions": _versions()}
        text = json.dumps(manifest, indent=1, default=str).encode()
        path = f"{artifact.folder}/manifest.json"
        won = self.storage.write_bytes(path, text, if_absent=True)
        self._commits.add((self.stage, self.key))
        if won:
            return artifact
        winner = ArtifactStore(self.storage).find(self.stage, self.key)
        assert winner is not None, "a manifest that was there a moment ago is gone"
        return winner

    def _put_table(
        self,
        name: str,
        table: str,
        rows: pa.Table,
        near: Held | None = None,
        *,
        compression: str = "zstd",
        use_dictionary: bool = True,
    ) -> File:
        import pyarrow.parquet as pq

        schema.check(table, rows)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression=compression, use_dictionary=use_dictionary)
        return self._put(name, buffer.getvalue(), rows.num_rows, near)

    def _put(self, name: str, data: bytes, rows: int = 0, near: Held | None = None) -> File:
        path = f"{self.attempt}/{name}"
        self.storage.write_bytes(f"{folder_of(self.stage, self.key)}/{path}", data)
        file = File(path, len(data), hashlib.sha256(data).hexdigest(), rows)
        if near is not None:
            near.put(file.sha256, data)
        return file

    def _marker(self, table: str, index: int) -> str:
        return marker_path(folder_of(self.stage, self.key), table, index)


class _Markers:
    """The markers that were there when they were first asked for, a thousand with one request."""

    BLOCK = 3  # last digits of a part's number

    def __init__(self, folder: str, none: bool) -> None:
        self.folder, self.none = folder, none
        self._blocks: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return _Markers, (self.folder, self.none)  # each process looks for those that it asks for

    def has(self, storage: Storage, name: str) -> bool:
        """Whether this marker is there."""
        start = self._start(name)
        with self._lock:
            if start not in self._blocks:
                there = () if self.none else storage.walk(self.folder, start)
                self._blocks[start] = {entry.path.rpartition("/")[2] for entry in there}
            return name in self._blocks[start]

    def add(self, name: str) -> None:
        """Know of a marker that was just written."""
        if (block := self._blocks.get(self._start(name))) is not None:
            block.add(name)

    def _start(self, name: str) -> str:
        return name.removesuffix(".json")[: -self.BLOCK]


def parse_marker(data: bytes) -> File | None:
    """The part that a marker publishes; a damaged marker counts as none."""
    try:
        marker = parse_mapping(data)
        return File.parse(marker) if "contents" in marker else None
    except ValueError:
        return None


def marker_path(folder: str, table: str, index: int) -> str:
    """Where the marker of a part lies."""
    return f"{folder}/parts/{marker_name(table, index)}"


def marker_name(table: str, index: int) -> str:
    """What the marker of a part is called."""
    return f"{table}-{index:05d}.json"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("cwerm", "torch", "timm", "ray", "pyarrow", "numpy")
    return {name: version(name) for name in names}
