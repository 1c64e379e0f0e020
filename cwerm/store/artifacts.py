"""The artifact store: what a stage made, under the key of everything it was made from.

One stage makes one artifact: named tables in parts, plus files, under ``artifacts/<stage>/<key>/``.
Data goes under a fresh attempt prefix. Each finished part is published by a small marker, so that a
later attempt need not make it again; the manifest, put last and only if absent, publishes the whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cwerm.errors import UserError
from cwerm.store import schema
from cwerm.store.manifest import Artifact, File, folder_of, parse_manifest
from cwerm.store.storage import Storage, parse_mapping
from cwerm.store.verified import VERIFIED

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Artifact", "ArtifactStore", "CorruptArtifactError", "File", "Writer", "artifact_key"]


class CorruptArtifactError(UserError):
    """A committed artifact whose manifest or files are damaged."""

    def __init__(self, where: str, reason: str, store: str) -> None:
        super().__init__(
            f"corrupt artifact {where}: {reason}; run `cwerm repair {store} --delete`, and the job again"
        )
        self.where, self.reason, self.store = where, reason, store

    def __reduce__(self) -> Any:
        return CorruptArtifactError, (self.where, self.reason, self.store)


def artifact_key(stage: str, parameters: dict[str, Any], inputs: list[str]) -> str:
    """The key of a stage's result: a hash of its name, its part of the job and its inputs' keys."""
    text = json.dumps([stage, parameters, inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class ArtifactStore:
    """Artifacts in a `Storage`, found by stage and key."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.earlier_seconds: dict[tuple[str, str], float] = {}
        """By stage and key: how long other attempts have worked on the artifact that is being made."""

    def find(self, stage: str, key: str) -> Artifact | None:
        """The committed artifact, or None; a damaged one is an error, not a silent recomputation.

        Its files are there and have their sizes; what they hold is checked where they are read.

        Raises:
            UserError: the manifest can't be parsed, or a file is missing or has another size.
        """
        artifact = self.load(stage, key)
        if artifact is not None:
            self._check_sizes(artifact)
        return artifact

    def load(self, stage: str, key: str) -> Artifact | None:
        """As `find`, without a look at the files that the manifest names."""
        path = f"{folder_of(stage, key)}/manifest.json"
        try:
            text = self.storage.read_bytes(path)
        except FileNotFoundError:
            return None
        try:
            return parse_manifest(stage, key, parse_mapping(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._corrupt(folder_of(stage, key), "manifest.json can't be parsed") from error

    def committed(self, stage: str, key: str) -> bool:
        """Whether there is such an artifact, without a look at its files."""
        return self.storage.size(f"{folder_of(stage, key)}/manifest.json") is not None

    def read_part(
        self, artifact: Artifact, table: str, index: int, columns: list[str] | None = None
    ) -> pa.Table:
        """One part of a table, its checksum verified; a process reads it once while it fits `VERIFIED`."""
        file = artifact.tables[table][index]
        data = self._read_once(artifact.folder, file)
        return self._parse_table(artifact.folder, file, data, columns, table)

    def read(self, artifact: Artifact, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, its parts in order."""
        import pyarrow as pa

        parts = range(len(artifact.tables[table]))
        return pa.concat_tables(self.read_part(artifact, table, i, columns) for i in parts)

    def read_file(self, artifact: Artifact, name: str) -> bytes:
        """One named file, its checksum verified."""
        return self._read_once(artifact.folder, artifact.files[name])

    def uri(self, artifact: Artifact, file: File | None = None) -> str:
        """The address of an artifact, or of one of its files."""
        return self.storage.uri(f"{artifact.folder}/{file.path}" if file else artifact.folder)

    def _read_once(self, folder: str, file: File) -> bytes:
        data = VERIFIED.get(file.sha256)
        if data is None:
            data = self._read(folder, file)
            VERIFIED.put(file.sha256, data)
        return data

    def _read(self, folder: str, file: File) -> bytes:
        try:
            data = self.storage.read_bytes(f"{folder}/{file.path}")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise self._corrupt(folder, f"{file.path} is missing") from error
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise self._corrupt(folder, f"{file.path} does not have its checksum")
        return data

    def _read_table(
        self, folder: str, file: File, columns: list[str] | None = None, table: str | None = None
    ) -> pa.Table:
        return self._parse_table(folder, file, self._read(folder, file), columns, table)

    def _parse_table(
        self, folder: str, file: File, data: bytes, columns: list[str] | None, table: str | None
    ) -> pa.Table:
        try:
            parquet = schema.open_parquet(io.BytesIO(data), file.path)
            if parquet.metadata.num_rows != file.rows:
                raise ValueError(f"{parquet.metadata.num_rows} rows instead of {file.rows}")
            if table is not None:
                schema.check_stored(table, parquet.schema_arrow)
            return parquet.read(columns)
        except (ValueError, KeyError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].partition("; ")[0]
            raise self._corrupt(folder, f"{file.path} can't be read ({reason})") from error

    def damage(self, folder: str, file: File, table: str | None = None) -> str | None:
        """What is wrong with a file of an artifact; None where it is whole."""
        try:
            if table is None:
                self._read(folder, file)
            else:
                self._read_table(folder, file, [], table)
        except CorruptArtifactError as error:
            return error.reason
        return None

    def _check_sizes(self, artifact: Artifact) -> None:
        for file in artifact.all_files():
            if self.storage.size(f"{artifact.folder}/{file.path}") != file.bytes:
                raise self._corrupt(artifact.folder, f"{file.path} is missing or has another size")

    def _corrupt(self, folder: str, reason: str) -> CorruptArtifactError:
        return CorruptArtifactError(self.storage.uri(folder), reason, self.storage.root)


class Writer:
    """Makes one artifact: parts and files, then `commit`. Picklable, so that workers write parts."""

    def __init__(
        self, store: ArtifactStore, stage: str, key: str, parameters: dict[str, Any]
    ) -> None:
        self.storage = store.storage
        self.stage, self.key, self.parameters = stage, key, parameters
        self.attempt = uuid.uuid4().hex[:12]
        self.started = time.monotonic()
        self.earlier_seconds = store.earlier_seconds.get((stage, key), 0.0)
        self._files: dict[str, File] = {}

    def finished_part(self, table: str, index: int, contents: str = "") -> File | None:
        """The part as this or an earlier attempt published it, None where it must still be made.

        It counts where it was made for the same ``contents`` and all its bytes are there.
        """
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
                can be taken over. Without one only a part of the very same bytes is the same.
        """
        made = self._put_table(f"{table}-{index:05d}.parquet", table, rows)
        file = replace(made, contents=contents)
        marker = json.dumps(asdict(file)).encode()
        if not self.storage.write_bytes(self._marker(table, index), marker, if_absent=True):
            published = self.finished_part(table, index, contents)
            if published and (contents or published.sha256 == file.sha256):
                return published
            self.storage.write_bytes(self._marker(table, index), marker)
        return file

    def write_unpublished(
        self, table: str, index: int, rows: pa.Table, *, name: str | None = None
    ) -> File:
        """Write one part of an intermediate result, which no other attempt will use.

        ``name`` tells apart several results of one table's schema.
        """
        return self._put_table(f"unpublished/{name or table}-{index:05d}.parquet", table, rows)

    def read_unpublished(self, file: File) -> pa.Table:
        """What `write_unpublished` wrote."""
        return ArtifactStore(self.storage)._read_table(folder_of(self.stage, self.key), file)

    def write_file(self, name: str, data: bytes) -> File:
        """Write one named file, to be published by `commit`."""
        self._files[name] = self._put(name, data)
        return self._files[name]

    def commit(
        self,
        tables: dict[str, list[File]],
        info: dict[str, Any] | None = None,
        *,
        least_seconds: float = 0.0,
    ) -> Artifact:
        """Publish the artifact; where another writer was first, its artifact is the result.

        Its seconds are those of all attempts, and no less than ``least_seconds``, which are known to be
        in it.
        """
        seconds = self.earlier_seconds + time.monotonic() - self.started
        artifact = Artifact(
            stage=self.stage,
            key=self.key,
            tables={name: tuple(parts) for name, parts in tables.items()},
            files=dict(self._files),
            info=info or {},
            seconds=max(seconds, least_seconds),
        )
        manifest = {**asdict(artifact), "parameters": self.parameters, "versions": _versions()}
        text = json.dumps(manifest, indent=1, default=str).encode()
        path = f"{artifact.folder}/manifest.json"
        if self.storage.write_bytes(path, text, if_absent=True):
            return artifact
        winner = ArtifactStore(self.storage).find(self.stage, self.key)
        assert winner is not None, "a manifest that was there a moment ago is gone"
        return winner

    def _put_table(self, name: str, table: str, rows: pa.Table) -> File:
        import pyarrow.parquet as pq

        schema.check(table, rows)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        return self._put(name, buffer.getvalue(), rows.num_rows)

    def _put(self, name: str, data: bytes, rows: int = 0) -> File:
        path = f"{self.attempt}/{name}"
        self.storage.write_bytes(f"{folder_of(self.stage, self.key)}/{path}", data)
        return File(path, len(data), hashlib.sha256(data).hexdigest(), rows)

    def _marker(self, table: str, index: int) -> str:
        return marker_path(folder_of(self.stage, self.key), table, index)


def parse_marker(data: bytes) -> File | None:
    """The part that a marker publishes; a damaged marker counts as none."""
    try:
        marker = parse_mapping(data)
        return File.parse(marker) if "contents" in marker else None
    except ValueError:
        return None


def marker_path(folder: str, table: str, index: int) -> str:
    """Where the marker of a part lies."""
    return f"{folder}/parts/{table}-{index:05d}.json"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("cwerm", "torch", "timm", "ray", "pyarrow", "numpy")
    return {name: version(name) for name in names}
