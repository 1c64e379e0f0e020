"""Storage: the same behaviour on a local folder and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from object_store import s3_prefix, storage_uri  # noqa: F401

from cwerm.errors import UserError
from cwerm.store.storage import LocalStorage, S3Storage, Storage, fetch, filesystem, open_storage

ROUNDS = 12
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def storage(storage_uri: str) -> Storage:  # noqa: F811
    return open_storage(storage_uri)


def test_what_is_written_is_read(storage: Storage) -> None:
    data = os.urandom(100_000)
    assert storage.write_bytes("a/b/c.bin", data)
    assert storage.read_bytes("a/b/c.bin") == data
    assert storage.size("a/b/c.bin") == len(data)
    assert storage.write_bytes("a/b/c.bin", b"")
    assert storage.read_bytes("a/b/c.bin") == b""
    assert storage.size("a/b/c.bin") == 0


def test_what_is_absent_is_said_to_be(storage: Storage) -> None:
    assert storage.size("x/y") is None
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("x/y")
    storage.delete("x/y")


def test_delete_and_upload(storage: Storage, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    storage.upload(file, "to/file")
    assert storage.read_bytes("to/file") == b"content"
    storage.delete("to/file")
    assert storage.size("to/file") is None


def test_if_absent_keeps_what_is_there(storage: Storage) -> None:
    assert storage.write_bytes("once", b"first", if_absent=True)
    assert not storage.write_bytes("once", b"second", if_absent=True)
    assert storage.read_bytes("once") == b"first"
    storage.delete("once")
    assert storage.write_bytes("once", b"third", if_absent=True)


def test_it_pickles_after_use(storage: Storage) -> None:
    storage.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read_bytes("a") == b"1"


def test_a_writable_storage_is_left_empty(storage: Storage) -> None:
    storage.check_writable()
    if isinstance(storage, S3Storage):
        _, _, bucket, prefix = storage.root.split("/")
        listing = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")
        assert "Contents" not in listing
    else:
        assert list(Path(storage.root).iterdir()) == []


def test_its_uris_can_be_opened_by_pyarrow(storage: Storage) -> None:
    storage.write_bytes("a/b", b"12")
    system, path = filesystem(storage.uri("a/b"))
    with system.open_input_stream(path) as stream:
        assert stream.read() == b"12"


def _race(uri: str, barrier: Any, writer: int, results: Any) -> None:
    storage = open_storage(uri)
    for round_ in range(ROUNDS):
        barrier.wait()
        won = storage.write_bytes(f"race-{round_}", str(writer).encode() * 1000, if_absent=True)
        results.put((round_, writer, won))


def test_of_racing_writers_exactly_one_wins(storage: Storage) -> None:
    count = 4
    barrier, results = SPAWN.Barrier(count), SPAWN.Queue()
    writers = [
        SPAWN.Process(target=_race, args=(storage.root, barrier, writer, results))
        for writer in range(count)
    ]
    for process in writers:
        process.start()
    entries = [results.get(timeout=60) for _ in range(ROUNDS * count)]
    for process in writers:
        process.join()
    for round_ in range(ROUNDS):
        winners = [writer for r, writer, won in entries if r == round_ and won]
        assert len(winners) == 1
        assert storage.read_bytes(f"race-{round_}") == str(winners[0]).encode() * 1000


def _write_for_ever(uri: str, size: int, started: Any) -> None:
    storage = open_storage(uri)
    started.set()
    while True:
        storage.write_bytes("object", os.urandom(1) * size)


def test_a_killed_writer_leaves_a_whole_object_or_none(storage: Storage) -> None:
    size = 2_000_000
    for delay in (0.0, 0.02, 0.06):
        started = SPAWN.Event()
        writer = SPAWN.Process(target=_write_for_ever, args=(storage.root, size, started))
        writer.start()
        started.wait()
        time.sleep(delay)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if storage.size("object") is not None:
            data = storage.read_bytes("object")
            assert len(data) == size
            assert len(set(data)) == 1


def test_readers_never_see_half_an_object(storage: Storage) -> None:
    size = 2_000_000
    storage.write_bytes("object", b"\0" * size)
    started = SPAWN.Event()
    writer = SPAWN.Process(target=_write_for_ever, args=(storage.root, size, started))
    writer.start()
    started.wait()
    try:
        seen: set[int] = set()
        reads, end = 0, time.monotonic() + 60
        while reads < 40 or len(seen) < 2:  # on a busy machine many are over before the first write
            assert time.monotonic() < end, "the writer wrote nothing meanwhile"
            data = storage.read_bytes("object")
            assert len(data) == size
            assert len(set(data)) == 1
            seen.add(data[0])
            reads += 1
    finally:
        writer.kill()
        writer.join()


def test_local_folders_hold_no_partial_files(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.write_bytes("a", b"1", if_absent=True)
    storage.write_bytes("a", b"2", if_absent=True)
    storage.write_bytes("a", b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_fetch_gives_a_local_copy(storage: Storage, tmp_path: Path) -> None:
    storage.write_bytes("weights/model.pth", b"tensors")
    assert fetch(storage.uri("weights/model.pth"), tmp_path).read_bytes() == b"tensors"


def test_an_s3_object_to_fetch_that_is_not_there(s3_prefix: str, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match=r"none\.pth: no such object"):
        fetch(f"{s3_prefix}/none.pth", tmp_path)


def test_wrong_credentials(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which has the right ones
    with pytest.raises(UserError, match=r"storage: 's3://.*can't be written") as caught:
        open_storage(s3_prefix).check_writable()
    assert "\n" not in str(caught.value)


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        open_storage(str(tmp_path / "file" / "store")).check_writable()


@pytest.mark.parametrize("open_", [open_storage, filesystem])
def test_an_unknown_scheme(open_: Any) -> None:
    with pytest.raises(UserError, match="unknown scheme 'gs'"):
        open_("gs://bucket/prefix")


def test_file_uris_and_home_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_storage("~/store").root == str(tmp_path / "store")
    assert open_storage(f"file://{tmp_path}/store").root == str(tmp_path / "store")
