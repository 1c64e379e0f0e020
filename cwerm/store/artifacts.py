"""The artifact store: what a stage made, under the key of everything it was made from.

One stage makes one artifact: named tables in parts, plus files, under ``artifacts/<stage>/<key>/``. How they
come there is in `writing`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from cwerm.errors import UserError
from cwerm.store import plain_types, schema
from cwerm.store.manifest import Artifact, File, folder_of, parse_manifest
from cwerm.store.storage import Storage, parse_mapping
from cwerm.store.verified import VERIFIED

if TYPE_CHECKING:
    import pyarrow as pa

READERS, READ_BYTES = 8, 2**26  # parts that a process reads at a time, and of what size together

__all__ = ["Artifact", "ArtifactStore", "CorruptArtifactError", "File", "Held", "artifact_key"]


class Held(Protocol):
    """Bytes that have been read already, by their SHA-256."""

    def get(self, checksum: str) -> bytes | None:
        """The bytes that have this checksum, where they are held."""

    def put(self, checksum: str, data: bytes) -> None:
        """Hold bytes that have this checksum, where there is room."""


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
    """Artifacts in a `Storage`, found by stage and key; parts that are ``near`` are not asked of it again."""

    def __init__(self, storage: Storage, near: Held | None = None) -> None:
        self.storage, self.near = storage, near
        self.earlier_seconds: dict[tuple[str, str], float] = {}
        """By stage and key: how long other attempts have worked on the artifact that is being made."""
        self.commits: set[tuple[str, str]] = set()
        """Stages and keys of what this process has committed, or seen another commit first."""
        self.untouched: set[tuple[str, str]] = set()
        """Stages and keys of which no other attempt has left anything."""

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
        if (stage, key) in self.commits:
            return True
        return self.storage.size(f"{folder_of(stage, key)}/manifest.json") is not None

    def read_part(
        self,
        artifact: Artifact,
        table: str,
        index: int,
        columns: list[str] | None = None,
        *,
        hold: bool = True,
    ) -> pa.Table:
        """One part of a table, its checksum verified; with ``hold``, read once while it fits in memory."""
        file = artifact.tables[table][index]
        data = self._read_once(artifact.folder, file, VERIFIED if hold else None, self.near)
        return self._parse_table(artifact.folder, file, data, columns, table)

    def read(self, artifact: Artifact, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table, its parts in order; several are read at a time."""
        import pyarrow as pa

        parts = range(len(artifact.tables[table]))
        return pa.concat_tables(self.read_parts(artifact, table, parts, columns))

    def read_parts(
        self, artifact: Artifact, table: str, parts: Sequence[int], columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """Some parts in the given order; several are read at a time, as each waits for the storage."""
        if len(parts) == 1:
            yield self.read_part(artifact, table, parts[0], columns)
            return
        largest = max((artifact.tables[table][part].bytes for part in parts), default=0)
        at_once = max(1, min(READERS, READ_BYTES // max(1, largest)))
        with ThreadPoolExecutor(at_once) as readers:
            for start in range(0, len(parts), at_once):
                some = parts[start : start + at_once]
                yield from readers.map(lambda i: self.read_part(artifact, table, i, columns), some)

    def read_file(self, artifact: Artifact, name: str) -> bytes:
        """One named file, its checksum verified."""
        return self._read_once(artifact.folder, artifact.files[name], VERIFIED, self.near)

    def uri(self, artifact: Artifact, file: File | None = None) -> str:
        """The address of an artifact, or of one of its files."""
        return self.storage.uri(f"{artifact.folder}/{file.path}" if file else artifact.folder)

    def _read_once(self, folder: str, file: File, *places: Held | None) -> bytes:
        """From the first of the places that holds it, or else from the storage; then all hold it."""
        lacking = []
        for place in filter(None, places):
            data = place.get(file.sha256)
            if data is not None:
                break
            lacking.append(place)
        else:
            data = self._read(folder, file)
        for place in lacking:
            place.put(file.sha256, data)
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
        self,
        folder: str,
        file: File,
        data: bytes,
        columns: list[str] | None = None,
        table: str | None = None,
    ) -> pa.Table:
        try:
            parquet = plain_types.open_parquet(io.BytesIO(data), file.path)
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
        files = artifact.all_files()
        sizes = self.storage.sizes(artifact.folder, (file.path for file in files))
        for file in files:
            if sizes.get(file.path) != file.bytes:
                raise self._corrupt(artifact.folder, f"{file.path} is missing or has another size")

    def _corrupt(self, folder: str, reason: str) -> CorruptArtifactError:
        return CorruptArtifactError(self.storage.uri(folder), reason, self.storage.root)
