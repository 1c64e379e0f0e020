"""Repair: what is damaged goes, what is whole stays, and the next run gives the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from object_store import s3_prefix  # noqa: F401
from test_garbage import meta_table

from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.storage import LocalStorage, Storage, open_storage
from cwerm.store.writing import Writer
from cwerm.upkeep.garbage import collect_garbage
from cwerm.upkeep.repair import find_damage, repair

PARTS = 4


def make(store: ArtifactStore, key: str = "key") -> tuple[Artifact, list[int]]:
    """An artifact, its missing parts made and the others taken over; which ones were made."""
    writer, made = Writer(store, "select", key, {}), []
    parts = []
    for index in range(PARTS):
        contents = f"what part {index} must hold"
        found = writer.finished_part("meta", index, contents)
        if found is None:
            made.append(index)
            found = writer.write_part("meta", index, meta_table(2 * index), contents)
        parts.append(found)
    writer.write_file("notes.txt", b"words")
    return writer.commit({"meta": parts}), made


def digests(artifact: Artifact) -> list[str]:
    return [file.sha256 for file in artifact.all_files()]


def spoil(storage: Storage, path: str, how: str) -> None:
    data = storage.read_bytes(path)
    if how == "gone":
        storage.delete(path)
    else:
        flipped = bytes([data[0] ^ 1]) + data[1:]
        storage.write_bytes(path, {"flipped": flipped, "cut": data[:-3], "empty": b""}[how])


@pytest.mark.parametrize("collected", [False, True], ids=["", "after gc"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_part_alone_is_made_anew(
    tmp_path: Path, how: str, collected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_and_repair(str(tmp_path), how, collected, capsys)


def test_a_damaged_part_in_a_bucket(
    s3_prefix: str,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage_and_repair(s3_prefix, "flipped", True, capsys)


def damage_and_repair(
    uri: str, how: str, collected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(open_storage(uri))
    before, made = make(store)
    assert made == [*range(PARTS)]
    if collected:
        collect_garbage(uri, delete=True, older_than_hours=0)
    spoil(store.storage, f"{before.folder}/{before.tables['meta'][2].path}", how)
    paths = {entry.path for entry in store.storage.walk("")}
    capsys.readouterr()
    repair(uri, delete=False)
    told = " ".join(capsys.readouterr().out.split())
    assert before.tables["meta"][2].path in told
    assert "--delete removes it" in told
    assert {entry.path for entry in store.storage.walk("")} == paths
    repair(uri, delete=True)
    assert store.find("select", "key") is None
    again, made = make(store)
    assert made == [2]
    assert digests(again) == digests(before)
    assert again.tables["meta"][:2] == before.tables["meta"][:2], (
        "the good ones stay where they are"
    )
    assert store.find("select", "key") == again
    capsys.readouterr()
    repair(uri, delete=True)
    assert capsys.readouterr().out == "nothing is damaged\n"


def test_a_damaged_file_leaves_the_parts(tmp_path: Path) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    before, _ = make(store)
    spoil(store.storage, f"{before.folder}/{before.files['notes.txt'].path}", "cut")
    repair(str(tmp_path), delete=True)
    again, made = make(store)
    assert made == []
    assert digests(again) == digests(before)


MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-9],
    "empty": lambda _: b"",
    "info": lambda data: json.dumps({**json.loads(data), "info": None}).encode(),
    "outside": lambda data: data.replace(b'"path": "', b'"path": "../../../'),
}


@pytest.mark.parametrize("damage", MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest_goes_and_published_parts_stay(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    before, _ = make(store)
    path = f"{before.folder}/manifest.json"
    store.storage.write_bytes(path, damage(store.storage.read_bytes(path)))
    repair(str(tmp_path), delete=True)
    again, made = make(store)
    assert made == []
    assert digests(again) == digests(before)


def test_published_parts_and_markers_of_an_unfinished_artifact(tmp_path: Path) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    writer = Writer(store, "select", "open", {})
    files = [writer.write_part("meta", i, meta_table(2 * i), "c") for i in range(3)]
    spoil(store.storage, f"artifacts/select/open/{files[0].path}", "flipped")
    store.storage.write_bytes("artifacts/select/open/parts/meta-00001.json", b"[]")
    found = [damage.what for damage in find_damage(store)]
    assert found == ["published part", "part marker"]
    repair(str(tmp_path), delete=True)
    finished = [Writer(store, "select", "open", {}).finished_part("meta", i, "c") for i in range(3)]
    assert finished == [None, None, files[2]]
    assert [*find_damage(store)] == []


@pytest.mark.parametrize("data", [b"", b"[]", b'{"name": 5}', b"\xff"])
def test_a_damaged_summary(tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs/x/summary.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    repair(str(tmp_path), delete=True)
    assert "runs/x/summary.json" in capsys.readouterr().out
    assert not path.exists()


def test_cut_off_anywhere_the_good_parts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOffError(Exception):
        pass

    write, remove = LocalStorage.write_bytes, LocalStorage.delete
    for count in range(12):
        uri = str(tmp_path / str(count))
        store = ArtifactStore(open_storage(uri))
        before, _ = make(store)
        collect_garbage(uri, delete=True, older_than_hours=0)
        spoil(store.storage, f"{before.folder}/{before.tables['meta'][1].path}", "flipped")
        left = count

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                nonlocal left
                if left == 0:
                    raise CutOffError
                left -= 1
                return function(*arguments, **named)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write_bytes", counted(write))
            patch.setattr(LocalStorage, "delete", counted(remove))
            with contextlib.suppress(CutOffError):
                repair(uri, delete=True)
        repair(uri, delete=True)
        again, made = make(store)
        assert made == [1], count
        assert digests(again) == digests(before)


def test_what_a_stranger_says_is_removed_lies_in_the_artifact(tmp_path: Path) -> None:
    """A manifest that names files elsewhere deletes none of them."""
    store = ArtifactStore(open_storage(str(tmp_path / "store")))
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    made, _ = make(store)
    path = f"{made.folder}/manifest.json"
    manifest = json.loads(store.storage.read_bytes(path))
    for name in (str(victim), "../../../../victim", "a/../../../../../victim"):
        digest = hashlib.sha256(b"else").hexdigest()
        entry = {"path": name, "bytes": 4, "sha256": digest, "rows": 0}
        manifest["files"] = {"notes.txt": entry}
        store.storage.write_bytes(path, json.dumps(manifest).encode())
        marker = json.dumps({**entry, "contents": ""}).encode()
        store.storage.write_bytes(f"{made.folder}/parts/meta-00007.json", marker)
        repair(str(tmp_path / "store"), delete=True)
        assert victim.read_bytes() == b"precious"
        make(store)
