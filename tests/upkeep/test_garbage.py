"""Garbage of every kind is found and removed, what is of use stays, wherever a removal is cut off."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from object_store import BUCKET, s3_prefix, storage_uri  # noqa: F401

from cwerm.errors import UserError
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.schema import table_schema
from cwerm.store.storage import LocalStorage, S3Storage, Storage, open_storage
from cwerm.store.writing import Writer
from cwerm.upkeep.garbage import collect_garbage

DONE, OPEN, TRAINED, RUNNING = "d" * 20, "a" * 20, "b" * 20, "c" * 20


def meta_table(start: int) -> pa.Table:
    columns = [pa.array([start, start + 1], pa.int64()), pa.array([0, 1], pa.int32())]
    return pa.table(columns, schema=table_schema("meta"))


class Planted:
    """A storage in which every kind of garbage lies beside what is of use."""

    def __init__(self, uri: str) -> None:
        self.storage = open_storage(uri)
        self.store = ArtifactStore(self.storage)
        self.garbage: set[str] = set()
        for key in (DONE, OPEN):
            self._attempts("select", key)
        self._put("artifacts/select/" + OPEN + "/state.pt")
        self._garbage("artifacts/select/" + DONE + "/state.pt")
        for record in ("claims/000001.json", "attempts/0123.json"):
            self._put(f"artifacts/select/{OPEN}/{record}")
            self._garbage(f"artifacts/select/{DONE}/{record}")
        Writer(self.store, "train", TRAINED, {}).commit({}, {"test_accuracy": 1})
        for name, stage_key in (("train", TRAINED), ("reweight", f"reweight-{DONE}")):
            for file in ("checkpoint_manager_snapshot.json", "checkpoint_1/state.pt"):
                self._garbage(f"runs/{name}/checkpoints/{stage_key}/{file}")
                self._put(f"runs/{name}/checkpoints/{stage_key[:-20]}{RUNNING}/{file}")
        Writer(self.store, "reweight", DONE, {}).commit({})
        for file in ("summary.json", "job.yaml", f"events/{TRAINED}/events.1"):
            self._put(f"runs/train/{file}")
        if isinstance(self.storage, LocalStorage):
            for file in ("manifest.json", "parts/meta-00000.json"):
                folder, _, name = f"artifacts/select/{OPEN}/{file}".rpartition("/")
                self._garbage(f"{folder}/.{name}.{uuid.uuid4().hex}")
            self._garbage(f"runs/train/.summary.json.{uuid.uuid4().hex}")
        self.kept = self.paths() - self.garbage

    def _attempts(self, stage: str, key: str) -> None:
        """Two attempts with published parts, one without; all is lost but what is published."""
        writers = [Writer(self.store, stage, key, {}) for _ in range(3)]
        parts = [
            writer.write_part("meta", i, meta_table(2 * i), "c")
            for i, writer in enumerate(writers[:2])
        ]
        for writer in writers:
            folder = f"artifacts/{stage}/{key}/{writer.attempt}"
            self._garbage(f"{folder}/unpublished/weights-00000.parquet")
            self._garbage(f"{folder}/result.pt")
        if key == DONE:
            writers[1].write_file("notes", b"words")
            writers[1].commit({"meta": parts})
            late = writers[2].write_part("meta", 2, meta_table(4), "c")
            self.garbage.add(f"artifacts/{stage}/{key}/{late.path}")
            self.garbage |= {f"artifacts/{stage}/{key}/parts/meta-{i:05d}.json" for i in range(3)}

    def _put(self, path: str) -> None:
        self.storage.write_bytes(path, path.encode())

    def _garbage(self, path: str) -> None:
        self._put(path)
        self.garbage.add(path)

    def paths(self) -> set[str]:
        return {entry.path for entry in self.storage.walk("")}

    def check_use(self) -> None:
        """What is committed is whole, and what is not goes on from its parts."""
        for stage, key in (("select", DONE), ("train", TRAINED), ("reweight", DONE)):
            assert self.store.find(stage, key)
        done = self.store.find("select", DONE)
        assert isinstance(done, Artifact)
        assert self.store.read(done, "meta").num_rows == 4
        assert self.store.read_file(done, "notes") == b"words"
        writer = Writer(self.store, "select", OPEN, {})
        for index in range(2):
            part = writer.finished_part("meta", index, "c")
            assert part
            assert writer.read_unpublished(part).equals(meta_table(2 * index))
        assert self.kept <= self.paths()


def test_all_garbage_goes_and_all_else_stays(
    storage_uri: str,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    planted = Planted(storage_uri)
    before = planted.paths()
    sizes = {entry.path: entry.size for entry in planted.storage.walk("")}
    collect_garbage(storage_uri, delete=False, older_than_hours=0)
    told = capsys.readouterr().out
    assert planted.paths() == before
    kinds = ["lost attempt", "lost files", "intermediate results", "part markers", "saved state"]
    kinds += ["claims", "attempts"]
    kinds += ["checkpoints"]
    if isinstance(planted.storage, LocalStorage):
        kinds.append("interrupted write")
    assert {line[:20].strip() for line in told.splitlines()} == {*kinds, "total"}
    total = sum(sizes[path] for path in planted.garbage)
    assert f"{total / 1000:.1f} kB  left in place; --delete removes it" in told
    collect_garbage(storage_uri, delete=True, older_than_hours=0)
    assert capsys.readouterr().out == told.replace("left in place; --delete removes it", "removed")
    assert planted.paths() == before - planted.garbage
    planted.check_use()
    if isinstance(planted.storage, LocalStorage):
        folders = [
            Path(parent) for parent, below, names in os.walk(storage_uri) if not below + names
        ]
        assert [folder.name for folder in folders] == ["parts"], "no other empty folder is left"
    collect_garbage(storage_uri, delete=True, older_than_hours=0)
    assert capsys.readouterr().out == "nothing to remove\n"


def test_what_is_young_stays(storage_uri: str, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    planted = Planted(storage_uri)
    before = planted.paths()
    collect_garbage(storage_uri, delete=True, older_than_hours=0.1)
    assert planted.paths() == before
    assert capsys.readouterr().out == "nothing to remove\n"


def test_one_young_file_keeps_its_attempt_or_training(tmp_path: Path) -> None:
    planted = Planted(str(tmp_path))
    spared = {f"runs/train/checkpoints/{TRAINED}/checkpoint_1/state.pt"}
    lost = sorted(path for path in planted.garbage if path.endswith("result.pt"))
    spared.add(lost[0])
    for entry in planted.storage.walk(""):
        if entry.path not in spared:
            os.utime(tmp_path / entry.path, (0, 0))
    collect_garbage(str(tmp_path), delete=True, older_than_hours=0.1)
    folders = (f"runs/train/checkpoints/{TRAINED}/", lost[0].removesuffix("result.pt"))
    assert planted.garbage & planted.paths() == {
        path for path in planted.garbage if path.startswith(folders)
    }


class _CutOffError(Exception):
    pass


def _die_after(count: int, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    left, delete = count, type(storage).delete

    def dying(self: Storage, path: str) -> None:
        nonlocal left
        if left == 0:
            raise _CutOffError
        left -= 1
        delete(self, path)

    monkeypatch.setattr(type(storage), "delete", dying)


def test_cut_off_anywhere_nothing_of_use_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(str(tmp_path / "planted"))
    for count in range(len(planted.garbage)):
        copy = tmp_path / str(count)
        shutil.copytree(tmp_path / "planted", copy)
        planted.storage.root = str(copy)
        with monkeypatch.context() as patch:
            _die_after(count, planted.storage, patch)
            with pytest.raises(_CutOffError):
                collect_garbage(str(copy), delete=True, older_than_hours=0)
        assert len(planted.garbage & planted.paths()) == len(planted.garbage) - count
        planted.check_use()
        _check_checkpoints(planted)
        _check_markers(planted)
        collect_garbage(str(copy), delete=True, older_than_hours=0)
        assert planted.paths() == planted.kept
        shutil.rmtree(copy)


def _check_checkpoints(planted: Planted) -> None:
    """Ray Train never finds an index of checkpoints that are gone."""
    paths = planted.paths()
    for path in paths:
        if path.endswith("snapshot.json"):
            assert (
                path.replace("checkpoint_manager_snapshot.json", "checkpoint_1/state.pt") in paths
            )


def _check_markers(planted: Planted) -> None:
    """No marker names a part that is gone."""
    writer = Writer(planted.store, "select", DONE, {})
    for index in range(3):
        if planted.storage.size(f"artifacts/select/{DONE}/parts/meta-{index:05d}.json") is not None:
            assert writer.finished_part("meta", index, "c")


def test_cut_off_in_a_bucket(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    planted = Planted(s3_prefix)
    with monkeypatch.context() as patch:
        _die_after(len(planted.garbage) // 2, planted.storage, patch)
        with pytest.raises(_CutOffError):
            collect_garbage(s3_prefix, delete=True, older_than_hours=0)
    planted.check_use()
    collect_garbage(s3_prefix, delete=True, older_than_hours=0)
    assert planted.paths() == planted.kept


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda _: b"", lambda _: b"[]"])
def test_an_artifact_with_a_damaged_manifest_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    planted = Planted(str(tmp_path))
    for stage, key in (("select", DONE), ("train", TRAINED)):
        manifest = tmp_path / f"artifacts/{stage}/{key}/manifest.json"
        manifest.write_bytes(damage(manifest.read_bytes()))
    before = planted.paths()
    collect_garbage(str(tmp_path), delete=True, older_than_hours=0)
    kept = (f"artifacts/select/{DONE}/", f"runs/train/checkpoints/{TRAINED}/")
    assert {p for p in before if p.startswith(kept)} <= planted.paths()
    assert capsys.readouterr().out.count("left as it is: corrupt artifact") == 2


def test_orphan_uploads_of_this_storage_alone_are_aborted(
    s3_prefix: str,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, prefix = boto3.client("s3"), s3_prefix.removeprefix(f"s3://{BUCKET}/")
    keys = [f"{prefix}/artifacts/train/{DONE}/{'0' * 12}/model", f"{prefix}/runs/x/weights.parquet"]
    others = [f"{prefix}-2/artifacts/train/{DONE}/{'0' * 12}/model", f"{prefix}/images/1.png"]
    for key in (*keys, *others):
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        part = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        client.upload_part(**part, PartNumber=1, Body=io.BytesIO(bytes(5 * 2**20)))
    storage = open_storage(s3_prefix)
    assert isinstance(storage, S3Storage)

    def unfinished() -> set[str]:
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET)
        found = {upload["Key"] for page in pages for upload in page.get("Uploads", [])}
        return {key for key in found if key.startswith(prefix)}

    collect_garbage(s3_prefix, delete=True, older_than_hours=0.1)
    assert unfinished() == {*keys, *others}
    capsys.readouterr()
    collect_garbage(s3_prefix, delete=True, older_than_hours=0)
    told = capsys.readouterr().out
    assert unfinished() == set(others)
    assert told.count("unfinished upload") == 2
    assert "10.5 MB  removed" in told


def test_files_of_others_stay(tmp_path: Path) -> None:
    others = ["images/1.png", "artifacts/notes.txt", "artifacts/train/readme", "runs/notes.txt"]
    others += ["artifacts/train/" + DONE + "/by-hand/notes.txt", "runs/x/checkpoints/mine/state.pt"]
    storage = open_storage(str(tmp_path))
    for path in others:
        storage.write_bytes(path, b"1")
    collect_garbage(str(tmp_path), delete=True, older_than_hours=0)
    assert {entry.path for entry in storage.walk("")} == set(others)


def test_a_storage_that_is_not_there(tmp_path: Path, s3_prefix: str) -> None:  # noqa: F811
    for uri in (str(tmp_path / "none"), "s3://no-such-bucket/store"):
        with pytest.raises(UserError, match=uri) as caught:
            collect_garbage(uri, delete=False, older_than_hours=1)
        assert "\n" not in str(caught.value)
