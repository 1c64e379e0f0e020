"""Claims: one producer an artifact, on a local folder and on a real S3 server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET, Server, mortal_server, s3_prefix, storage_uri  # noqa: F401

from cwerm.errors import UserError
from cwerm.store import claims
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.claims import claimed, owners
from cwerm.store.s3 import client as s3_client
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer

STAGE, KEY = "reweight", "0123456789abcdef0123"

HOLDER = """
import sys, time
from cwerm.store import claims
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.storage import open_storage

claims.BEAT_SECONDS = 0.2
with claims.claimed(ArtifactStore(open_storage(sys.argv[1])), sys.argv[2], sys.argv[3]):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(storage_uri: str) -> ArtifactStore:  # noqa: F811
    return ArtifactStore(open_storage(storage_uri))


def make(store: ArtifactStore, text: str) -> Artifact:
    writer = Writer(store, STAGE, KEY, {})
    writer.write_file("note.txt", text.encode())
    return writer.commit({})


def claim_files(store: ArtifactStore) -> list[str]:
    return [entry.path for entry in store.storage.walk(f"artifacts/{STAGE}/{KEY}/claims")]


def test_of_many_one_makes_it_and_all_get_it(store: ArtifactStore) -> None:
    made: list[str] = []
    start = threading.Barrier(6)

    def run(name: str) -> bytes:
        start.wait()
        with claimed(store, STAGE, KEY) as artifact:
            if artifact is None:
                time.sleep(0.5)
                made.append(name)
                artifact = make(store, name)
            return store.read_file(artifact, "note.txt")

    with ThreadPoolExecutor(6) as pool:
        notes = [*pool.map(run, "abcdef")]
    assert len(made) == 1
    assert notes == [made[0].encode()] * 6
    assert claim_files(store) == [], "claims go with the commit"


def test_one_that_fails_leaves_it_to_the_next(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "SILENT_SECONDS", 1e9)
    with pytest.raises(ZeroDivisionError), claimed(store, STAGE, KEY):
        raise ZeroDivisionError
    assert claim_files(store) == []
    with claimed(store, STAGE, KEY) as artifact:
        assert artifact is None
        make(store, "second")
    with claimed(store, STAGE, KEY) as artifact:
        assert artifact
    assert claim_files(store) == []


def test_one_killed_on_this_host_is_replaced_at_once(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(owners, "SILENT_SECONDS", 1e9)
    command = [sys.executable, "-c", HOLDER, store.storage.root, STAGE, KEY]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"mine\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with claimed(store, STAGE, KEY) as artifact:
            assert artifact is None
    assert f"takes over from process {holder.pid}" in capfd.readouterr().out


def test_the_seconds_of_all_attempts_count(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed, and two that failed, before the one that makes it."""
    command = [sys.executable, "-c", HOLDER, store.storage.root, STAGE, KEY]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"mine\n"
        time.sleep(1.5)
        holder.kill()
    # the claim, and not what a kill may leave half-written beside it
    (claim,) = (path for path in claim_files(store) if path.endswith("/000001.json"))
    killed = json.loads(store.storage.read_bytes(claim))["seconds"]
    assert 0.5 < killed < 30

    def fail(error: type[Exception]) -> None:
        time.sleep(1)
        raise error

    for error in (ZeroDivisionError, UserError):
        with pytest.raises(error), claimed(store, STAGE, KEY):
            fail(error)
    with claimed(store, STAGE, KEY):
        made = make(store, "last")
    assert killed + 2 < made.seconds < killed + 30
    found = store.find(STAGE, KEY)
    assert found
    assert found.seconds == made.seconds
    left = {entry.path for entry in store.storage.walk(made.folder)}
    assert left == {f"{made.folder}/manifest.json", f"{made.folder}/{made.files['note.txt'].path}"}


@pytest.mark.parametrize("record", [b"", b"[]", b'{"seconds": NaN}', b'{"seconds": "9"}', b"{}"])
def test_a_record_that_makes_no_sense_is_no_time(tmp_path: Path, record: bytes) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    store.storage.write_bytes(f"artifacts/{STAGE}/{KEY}/attempts/0.json", record)
    with claimed(store, STAGE, KEY):
        assert make(store, "only").seconds < 60


def test_one_refused_at_once_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(UserError), claimed(store, STAGE, KEY):
        raise UserError("data.source: no")
    assert not [*store.storage.walk("")]


def test_no_fewer_seconds_than_are_known(store: ArtifactStore) -> None:
    assert Writer(store, STAGE, KEY, {}).commit({}, least_seconds=90.5).seconds == 90.5


def test_one_of_another_host_counts_as_dead_after_its_silence(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(owners, "POLL_SECONDS", 0.1)
    silent: dict[str, Any] = {
        "token": "t", "host": "far", "machine": "far", "process": 1, "started": 0.0, "beat": 5,
    }  # fmt: skip
    path = f"artifacts/{STAGE}/{KEY}/claims/000001.json"
    store.storage.write_bytes(path, json.dumps(silent).encode())
    started = time.monotonic()
    with claimed(store, STAGE, KEY) as artifact:
        assert artifact is None
    assert 1.4 < time.monotonic() - started < 20


def test_a_beat_keeps_it(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(owners, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.3)
    # its process is of no table that the other can see, so that the beat alone tells
    monkeypatch.setattr(owners, "_machine", lambda: None)
    order: list[str] = []
    entered = threading.Event()

    def slow() -> None:
        with claimed(store, STAGE, KEY) as artifact:
            assert artifact is None
            entered.set()
            time.sleep(4)
            order.append("first")
            make(store, "first")

    thread = threading.Thread(target=slow)
    thread.start()
    assert entered.wait(30)
    with claimed(store, STAGE, KEY) as artifact:
        order.append("second")
        assert artifact
    thread.join()
    assert order == ["first", "second"]


def test_one_that_slept_leaves_the_claims_that_came_after_it(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its own between them, the later ones could not be seen."""
    monkeypatch.setattr(owners, "SILENT_SECONDS", 0.2)
    with claimed(store, STAGE, KEY):
        time.sleep(0.3)
        folder = f"artifacts/{STAGE}/{KEY}/claims"
        store.storage.write_bytes(f"{folder}/000002.json", b"{}")
        make(store, "late")
    assert claim_files(store) == [f"{folder}/{name}.json" for name in ("000001", "000002")]


def test_what_is_left_of_others_is_seen(store: ArtifactStore) -> None:
    with claimed(store, STAGE, KEY):
        assert (STAGE, KEY) in store.untouched
        Writer(store, STAGE, KEY, {}).write_file("note.txt", b"not committed")
    with claimed(store, STAGE, KEY):
        assert not store.untouched


def test_what_went_wrong_is_told_although_the_claim_can_not_be_given_up(
    mortal_server: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 0.5)
    store = ArtifactStore(open_storage(f"s3://{BUCKET}/store"))

    def fail() -> None:
        mortal_server.kill()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), claimed(store, STAGE, KEY):
        fail()
