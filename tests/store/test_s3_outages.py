"""Outages of a real S3 server: short ones are waited out, long ones are one clear line."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, Server, mortal_server, s3_prefix  # noqa: F401
from PIL import Image

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.stages.ingest.scan import Scanner
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.s3 import client as s3_client
from cwerm.store.schema import table_schema
from cwerm.store.storage import S3Storage, Storage, filesystem, open_storage
from cwerm.store.writing import Writer

DOWN_SECONDS = 4.0  # without the server's own start, of some 20 seconds after a kill
LARGE = 20 * 2**20  # goes up in parts


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 0.4)


def _restart_later(server: Server) -> threading.Thread:
    server.kill()
    thread = threading.Timer(DOWN_SECONDS, server.start)
    thread.start()
    return thread


def _assert_one_line(error: UserError, server: Server) -> None:
    assert "\n" not in str(error)
    assert server.address in str(error)
    assert "no answer" in str(error)


@pytest.mark.slow
def test_writes_and_reads_go_on_after_the_server_was_killed(mortal_server: Server) -> None:  # noqa: F811
    storage = open_storage(f"s3://{BUCKET}/store")
    written = {}
    thread = None
    for number in range(60):
        if number == 20:
            thread = _restart_later(mortal_server)
        data = os.urandom(10_000)
        assert storage.write_bytes(f"objects/{number}", data, if_absent=number % 2 == 0)
        written[f"objects/{number}"] = data
        assert storage.read_bytes(f"objects/{number // 2}") == written[f"objects/{number // 2}"]
        assert storage.size(f"objects/{number}") == len(data)
    assert thread
    thread.join()
    assert {entry.path for entry in storage.walk("objects")} == written.keys()
    assert all(storage.read_bytes(path) == data for path, data in written.items())


@pytest.mark.slow
def test_each_kind_of_request_waits_for_the_server(
    mortal_server: Server,  # noqa: F811
    tmp_path: Path,
) -> None:
    storage = open_storage(f"s3://{BUCKET}/store")
    storage.write_bytes("a", b"1")
    storage.write_bytes("b", b"2")
    storage.write_bytes("d", b"4")
    table = pa.table({"x": np.arange(100_000)})
    pq.write_table(table, tmp_path / "table")
    storage.upload(tmp_path / "table", "table")
    large = np.random.default_rng(0).bytes(LARGE)
    (tmp_path / "large").write_bytes(large)
    system, root = filesystem(storage.uri("table"))
    actions: list[Callable[[], object]] = [
        lambda: storage.read_bytes("a") == b"1",
        lambda: storage.write_bytes("c", b"3", if_absent=True),
        lambda: storage.size("b") == 1,
        lambda: storage.delete("d") or storage.size("d") is None,
        lambda: storage.upload(tmp_path / "large", "large") or storage.read_bytes("large") == large,
        lambda: storage.write_bytes("large2", large) and storage.read_bytes("large2") == large,
        lambda: "b" in {entry.path for entry in storage.walk("")},
        # those of the others here may be under way
        lambda: {u.entry.path for u in storage.unfinished_uploads("")} <= {"large", "large2"},
        lambda: pq.read_table(system.open_input_file(root)).equals(table),
    ]
    results: list[object] = [None] * len(actions)

    def act(index: int) -> None:
        results[index] = actions[index]()

    restart = _restart_later(mortal_server)
    started = time.monotonic()
    threads = [threading.Thread(target=act, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in [*threads, restart]:
        thread.join()
    assert results == [True] * len(actions)
    assert time.monotonic() - started > DOWN_SECONDS


def test_an_outage_that_lasts_is_one_line(
    mortal_server: Server,  # noqa: F811
    impatient: None,
    tmp_path: Path,
) -> None:
    storage = open_storage(f"s3://{BUCKET}/store")
    (tmp_path / "large").write_bytes(bytes(LARGE))
    mortal_server.kill()
    system, root = filesystem(storage.uri("a"))
    actions: list[Callable[[], object]] = [
        lambda: storage.read_bytes("a"),
        lambda: storage.write_bytes("a", b""),
        lambda: storage.write_bytes("a", b"", if_absent=True),
        lambda: storage.upload(tmp_path / "large", "a"),
        lambda: storage.size("a"),
        lambda: storage.delete("a"),
        lambda: list(storage.walk("a")),
        lambda: list(storage.unfinished_uploads("a")),
        lambda: system.get_file_info(root),
        lambda: system.open_input_file(root),
        lambda: storage.check_writable(),
    ]
    for action in actions:
        started = time.monotonic()
        with pytest.raises(UserError) as caught:
            action()
        assert time.monotonic() - started < 15
        _assert_one_line(caught.value, mortal_server)


def test_an_outage_is_no_reason_to_make_a_part_again(
    mortal_server: Server,  # noqa: F811
    impatient: None,
) -> None:
    writer = Writer(ArtifactStore(open_storage(f"s3://{BUCKET}/store")), "select", "key", {})
    schema = table_schema("meta")
    writer.write_part("meta", 0, pa.table([[0], [1]], schema=schema), "c")
    mortal_server.kill()
    with pytest.raises(UserError, match="no answer"):
        writer.finished_part("meta", 0, "c")


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_images_of_a_silent_server_are_not_rejected(
    mortal_server: Server,  # noqa: F811
    impatient: None,
    tmp_path: Path,
    kind: str,
) -> None:
    storage = open_storage(f"s3://{BUCKET}/images")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    image = (tmp_path / "image.png").read_bytes()
    if kind == "parquet":
        table = pa.table({"image": [image] * 6, "label": ["a", "b"] * 3})
        pq.write_table(table, tmp_path / "images.parquet")
        storage.upload(tmp_path / "images.parquet", "images.parquet")
    else:
        for number in range(6):
            storage.write_bytes(f"{'ab'[number % 2]}/{number}.png", image)
    source = open_source(storage.root)
    if kind == "folder":
        storage.write_bytes("a/4.png", b"no image")
    (chunk,) = source.chunks("train", 10)
    scan = Scanner({"source": source})(("images", "source", chunk))
    assert [path for path, _ in scan.rejects] == (["a/4.png"] if kind == "folder" else [])
    mortal_server.kill()
    with pytest.raises(UserError) as caught:
        Scanner({"source": source})(("images", "source", chunk))
    _assert_one_line(caught.value, mortal_server)


class _Breaker:
    """A relay before the server that breaks the next connections after so many bytes of the answer."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts: list[int] = []  # answers to break, each after so many bytes
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(inner,), daemon=True).start()

    def _connect(self, inner: socket.socket) -> None:
        with inner, socket.create_connection(self._target) as outer:
            requests = threading.Thread(target=self._relay, args=(inner, outer, False))
            requests.start()
            self._relay(outer, inner, True)
            requests.join()

    def _relay(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                if answers and self.cuts and passed + len(data) > self.cuts[0]:
                    sink.sendall(data[: self.cuts.pop(0) - passed])
                    self.broken += 1
                    break
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def breaker(s3_prefix: str) -> Iterator[_Breaker]:  # noqa: F811
    with closing(_Breaker(os.environ["AWS_ENDPOINT_URL_S3"])) as relay:
        yield relay


@pytest.fixture
def behind(breaker: _Breaker, s3_prefix: str) -> Storage:  # noqa: F811
    return S3Storage(s3_prefix, S3(endpoint=breaker.address))


def test_a_conditional_put_whose_answer_was_lost_has_won(
    behind: Storage,
    breaker: _Breaker,
    s3_prefix: str,  # noqa: F811
) -> None:
    breaker.cuts = [0]
    assert behind.write_bytes("manifest", b"mine", if_absent=True)
    assert breaker.broken == 1
    assert open_storage(s3_prefix).read_bytes("manifest") == b"mine"


def test_a_conditional_put_whose_answer_was_lost_has_lost_to_another(
    behind: Storage,
    breaker: _Breaker,
    s3_prefix: str,  # noqa: F811
) -> None:
    open_storage(s3_prefix).write_bytes("manifest", b"theirs")
    breaker.cuts = [0]
    assert not behind.write_bytes("manifest", b"mine", if_absent=True)
    assert breaker.broken == 1
    assert behind.read_bytes("manifest") == b"theirs"


def test_the_same_content_of_another_writer_is_theirs(behind: Storage) -> None:
    assert behind.write_bytes("manifest", b"same", if_absent=True)
    assert not behind.write_bytes("manifest", b"same", if_absent=True)


@pytest.mark.parametrize("cut", [0, 40, 100_000, 3_000_000])
def test_an_answer_that_breaks_off_is_read_again(
    behind: Storage, breaker: _Breaker, cut: int
) -> None:
    data = os.urandom(5_000_000)
    behind.write_bytes("object", data)
    s3_client._client.cache_clear()  # so that the next request has a connection of its own
    breaker.cuts = [cut, cut]
    assert behind.read_bytes("object") == data
    assert breaker.broken == 2


@pytest.mark.parametrize("cuts", [[0], [0, 0, 0]])
def test_a_large_object_goes_up_although_answers_are_lost(
    behind: Storage, breaker: _Breaker, tmp_path: Path, cuts: list[int]
) -> None:
    data = np.random.default_rng(0).bytes(LARGE)
    (tmp_path / "large").write_bytes(data)
    breaker.cuts = list(cuts)
    behind.upload(tmp_path / "large", "large")
    assert breaker.broken == len(cuts)
    assert behind.read_bytes("large") == data
