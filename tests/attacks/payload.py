"""What a stranger would put where data are read: a pickle that leaves a file behind when it is loaded."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa

from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.writing import Writer


class Payload:
    """Pickled, it is a call that makes the file ``mark``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def pickled(mark: Path) -> bytes:
    """The pickle, proved to work."""
    data = pickle.dumps(Payload(mark))
    pickle.loads(data)
    assert mark.exists(), "the payload itself does nothing"
    mark.unlink()
    return data


def extension(storage: pa.DataType, name: str, detail: bytes = b"") -> dict[str, Any]:
    """A field's type and metadata, which say that its type is the extension ``name``."""
    metadata = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": detail}
    return {"type": storage, "metadata": metadata}


def put_part(
    store: ArtifactStore, stage: str, key: str, table: str, data: bytes, rows: int
) -> Artifact:
    """A committed artifact of one part, whose bytes are anything; every checksum is right."""
    writer = Writer(store, stage, key, {})
    writer.commit({}, {"class_names": ["a", "b"]})
    path = f"artifacts/{stage}/{key}/manifest.json"
    manifest = json.loads(store.storage.read_bytes(path))
    name = f"{writer.attempt}/{table}-00000.parquet"
    store.storage.write_bytes(f"artifacts/{stage}/{key}/{name}", data)
    digest = hashlib.sha256(data).hexdigest()
    part = {"path": name, "bytes": len(data), "sha256": digest, "rows": rows}
    manifest["tables"] = {table: [part]}
    store.storage.write_bytes(path, json.dumps(manifest).encode())
    found = store.find(stage, key)
    assert found
    return found
