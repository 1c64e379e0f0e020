"""What is damaged in a storage, found, and taken out when asked, so that the next run makes it anew.

Of an artifact only the damaged parts go: markers publish the others again, and the next run takes them
over. It gives the same bytes, so that what was made from the artifact stays right.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cwerm.errors import UserError
from cwerm.runs.summary import load_summary
from cwerm.store.artifacts import Artifact, ArtifactStore, CorruptArtifactError, File
from cwerm.store.local import LocalStorage
from cwerm.store.objects import Storage, parse_mapping
from cwerm.store.storage import open_storage
from cwerm.store.writing import marker_path, parse_marker
from cwerm.terminal import console

MARKER = re.compile(r"(?P<table>[a-z_]+)-(?P<index>\d{5,})\.json")
PART = re.compile(r"[^/]+/(?P<table>[a-z_]+)-(?P<index>\d{5,})\.parquet")


@dataclass(frozen=True)
class Damage:
    """Something damaged: what it is and why, what is written first, and what is removed then, in order."""

    what: str
    path: str
    reason: str
    write: tuple[tuple[str, bytes], ...] = ()
    remove: tuple[str, ...] = ()


def repair(storage: str, *, delete: bool) -> list[Damage]:
    """Print what is damaged, and with ``delete`` remove it, to be made anew by the next run; what it is.

    Everything is read: artifacts and their parts, published parts of unfinished ones, and summaries. Saved
    states, checkpoints and claims need no repair, as a damaged one counts as none.

    Raises:
        UserError: there is no such storage, or it does not answer.
    """
    store = ArtifactStore(open_storage(storage))
    if isinstance(store.storage, LocalStorage) and not Path(store.storage.root).is_dir():
        raise UserError(f"{storage}: no such folder; give a job's storage, such as cwerm-store")
    found = []
    for damage in find_damage(store):
        found.append(damage)
        line = f"{damage.what:<20}  {damage.path}  ({damage.reason})"
        console.out.print(line, soft_wrap=True, markup=False)
        if delete:
            for path, data in damage.write:
                store.storage.write_bytes(path, data)
            for path in damage.remove:
                store.storage.delete(path)
    outcome = "removed; run the jobs again, which make it anew" if delete else (
        "left in place; --delete removes it, so that the next run makes it anew"
    )  # fmt: skip
    console.out.print(
        f"{len(found)} damaged, {outcome}" if found else "nothing is damaged", soft_wrap=True
    )
    return found


def find_damage(store: ArtifactStore) -> Iterator[Damage]:
    """All that is damaged, the parts of an artifact before the artifact."""
    paths = (entry.path for entry in store.storage.walk("artifacts"))
    for folder, group in itertools.groupby(paths, lambda path: "/".join(path.split("/")[:3])):
        files = {path[len(folder) + 1 :] for path in group}
        if folder.count("/") == 2 and files != {""}:
            yield from _of_artifact(store, folder, files)
    for entry in store.storage.walk("runs"):
        if re.fullmatch(r"runs/[^/]+/summary\.json", entry.path):
            yield from _of_summary(store.storage, entry.path)


def _of_artifact(store: ArtifactStore, folder: str, files: set[str]) -> Iterator[Damage]:
    _, stage, key = folder.split("/")
    manifest = f"{folder}/manifest.json"
    try:
        artifact = store.load(stage, key)
    except CorruptArtifactError as error:
        yield from _of_markers(store, folder, files)
        yield Damage("manifest", manifest, error.reason, remove=(manifest,))
        return
    if artifact is None:
        yield from _of_markers(store, folder, files)
        return
    bad = {file.path: reason for file, reason in _damaged_files(store, artifact)}
    if not bad:
        return
    # the good parts are published before the manifest goes, and damaged files go last: cut off anywhere,
    # the artifact is either damaged as before or goes on from its good parts
    good: list[tuple[str, bytes]] = []
    markers: list[str] = []
    for table, parts in artifact.tables.items():
        for file in parts:
            found = PART.fullmatch(file.path)
            if found is None or found["table"] != table:
                continue  # of a part that no attempt could take over
            marker = marker_path(folder, table, int(found["index"]))
            if file.path in bad:
                markers.append(marker)
            else:
                good.append((marker, json.dumps(asdict(file)).encode()))
    for path, reason in bad.items():
        yield Damage("file of an artifact", f"{folder}/{path}", reason)
    kept = f"{len(good)} whole part(s) stay"
    remove = (*markers, manifest, *(f"{folder}/{path}" for path in bad))
    yield Damage("artifact", folder, kept, tuple(good), remove)


def _damaged_files(store: ArtifactStore, artifact: Artifact) -> Iterator[tuple[File, str]]:
    for table, parts in artifact.tables.items():
        for file in parts:
            reason = store.damage(artifact.folder, file, table)
            if reason is not None:
                yield file, reason
    for file in artifact.files.values():
        reason = store.damage(artifact.folder, file)
        if reason is not None:
            yield file, reason


def _of_markers(store: ArtifactStore, folder: str, files: set[str]) -> Iterator[Damage]:
    """Published parts of an artifact that is not committed."""
    for name in sorted(files):
        found = MARKER.fullmatch(name.removeprefix("parts/")) if name.startswith("parts/") else None
        if found is None:
            continue
        try:
            file = parse_marker(store.storage.read_bytes(f"{folder}/{name}"))
        except FileNotFoundError:
            continue  # committed, and removed as garbage meanwhile
        if file is None:
            yield Damage(
                "part marker", f"{folder}/{name}", "can't be parsed", remove=(f"{folder}/{name}",)
            )
            continue
        reason = store.damage(folder, file, found["table"])
        if reason is not None:
            remove = (f"{folder}/{name}", f"{folder}/{file.path}")
            yield Damage("published part", f"{folder}/{file.path}", reason, remove=remove)


def _of_summary(storage: Storage, path: str) -> Iterator[Damage]:
    try:
        parse_mapping(storage.read_bytes(path))
        load_summary(storage.uri(path.rpartition("/")[0]))
    except FileNotFoundError:
        return
    except ValueError as error:
        reason = str(error).partition("; ")[0].rpartition(": ")[2]
        yield Damage("summary", path, reason, remove=(path,))
