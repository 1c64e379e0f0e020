"""How long a bucket is waited for: seconds at first, the patience in mid-run, not at all for what stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.commands import heed_interruptions, start
from object_store import BUCKET, Server, mortal_server, s3_prefix  # noqa: F401
from s3_servers import Asked, Said, relay, silent_server, tls_server

from cwerm.data.catalog import open_source
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.store.s3 import client as s3_client
from cwerm.store.storage import S3Storage, open_storage
from cwerm.terminal import console

FIRST, PATIENCE = 0.5, 2.0


@pytest.fixture(autouse=True)
def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patience in less time, for this process."""
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", FIRST)
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", PATIENCE)
    monkeypatch.setattr(s3_client, "SHORTEST_READ", 0.5)
    monkeypatch.setattr(s3_client, "QUIET_SECONDS", 0.2)


@pytest.fixture
def silent() -> Iterator[str]:
    with silent_server() as address:
        yield address


def seconds_to_fail(action: Callable[[], object], *words: str) -> float:
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    return time.monotonic() - started


def test_a_silent_server_is_known_in_seconds_at_first(
    silent: str,
    s3_prefix: str,  # noqa: F811
) -> None:
    settings = S3(endpoint=silent)
    words = ("no answer from", silent, "silent", "s3.endpoint")
    for action in (
        lambda: open_storage(s3_prefix, settings).check_writable(),
        lambda: open_source(s3_prefix, s3=settings),
    ):
        assert seconds_to_fail(action, *words) < 10


@pytest.mark.parametrize("begins", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_tries_together_take_the_patience(
    begins: bool,
    s3_prefix: str,  # noqa: F811
) -> None:
    """A server that falls silent in mid-run: time for answers, for what follows their beginning, and
    between tries counts alike."""
    falls_silent = threading.Event()

    def answer(asked: Asked) -> Said | None:
        if falls_silent.is_set():
            if begins:
                return Said(200, "<half", headers={"content-length": "100"})
            time.sleep(30)
        return None

    with relay(os.environ["AWS_ENDPOINT_URL_S3"], answer) as server:
        storage = S3Storage(s3_prefix, S3(endpoint=server.address))
        storage.write_bytes("a", b"1")
        falls_silent.set()
        took = seconds_to_fail(lambda: storage.read_bytes("a"), "no answer")
    assert PATIENCE - 1.5 < took < PATIENCE + 4


def test_a_busy_server_is_waited_for_and_told(s3_prefix: str) -> None:  # noqa: F811
    first: list[float] = []

    def answer(asked: Asked) -> Said | None:
        first.append(time.monotonic())
        is_busy = time.monotonic() < first[0] + 1.2  # longer than a first look
        return Said(503, "SlowDown") if is_busy else None

    told: list[str] = []
    with relay(os.environ["AWS_ENDPOINT_URL_S3"], answer) as server, console.told_to(told.append):
        storage = S3Storage(s3_prefix, S3(endpoint=server.address))
        assert storage.write_bytes("a", b"1", if_absent=True)
    (line,) = told
    assert line.startswith(f"{s3_prefix}/a: no answer from {server.address} (it is busy, SlowDown)")
    assert "; trying until " in line


def test_a_name_that_is_not_found(
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mistake at first, an outage of the network's names once the server has answered."""
    look_up, known = socket.getaddrinfo, [False]

    def resolve(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "s3.gone.test" and not known[0]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up("127.0.0.1" if name == "s3.gone.test" else name, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", 30.0)
    port = os.environ["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]
    storage = S3Storage(s3_prefix, S3(endpoint=f"http://s3.gone.test:{port}"))
    assert (
        seconds_to_fail(storage.check_writable, "no host 's3.gone.test'", "s3.endpoint")
        < PATIENCE - 1
    )
    known[0] = True
    storage.write_bytes("a", b"1")
    storage.client._endpoint.http_session.close()  # its connections are kept
    known[0] = False
    back = threading.Timer(0.7, lambda: known.__setitem__(0, True))
    back.start()
    assert storage.read_bytes("a") == b"1"
    back.join()


def test_certificates(
    s3_prefix: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", 60.0)
    with tls_server(os.environ["AWS_ENDPOINT_URL_S3"], tmp_path) as address:
        storage = S3Storage(s3_prefix, S3(endpoint=address))
        read = lambda: storage.read_bytes("a")  # noqa: E731
        assert seconds_to_fail(read, "not trusted", "AWS_CA_BUNDLE", address) < 10
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
        assert seconds_to_fail(read, "AWS_CA_BUNDLE", "none.pem", "No such file") < 10
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "key.pem"))
        assert seconds_to_fail(read, "AWS_CA_BUNDLE", "key.pem") < 10
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        storage.write_bytes("a", b"1")
        assert storage.read_bytes("a") == b"1"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    plain = os.environ["AWS_ENDPOINT_URL_S3"].replace("http:", "https:")
    storage = S3Storage(s3_prefix, S3(endpoint=plain))
    assert seconds_to_fail(lambda: storage.read_bytes("a"), "speaks no TLS", "http://") < 10


def test_nothing_waits_after_an_interrupt(
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In no thread, and not for long: what is started later has its patience again."""
    with relay(os.environ["AWS_ENDPOINT_URL_S3"], lambda asked: Said(503, "SlowDown")) as server:
        _interrupt_readers(S3Storage(s3_prefix, S3(endpoint=server.address)), monkeypatch)


def _interrupt_readers(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(s3_client, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(s3_client, "HURRY_SECONDS", 30.0)
    assert storage.client  # which takes a while to make
    ended: list[float] = []

    def read() -> None:
        seconds_to_fail(lambda: storage.read_bytes("a"), "no answer")
        ended.append(time.monotonic())

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    interrupted = time.monotonic()
    s3_client.hurry()
    for thread in threads:
        thread.join()
    assert max(ended) - interrupted < 3
    assert seconds_to_fail(lambda: storage.read_bytes("a"), "no answer") < 3
    monkeypatch.setattr(s3_client, "PATIENCE_SECONDS", 1.2)
    monkeypatch.setattr(s3_client, "HURRY_SECONDS", 0.0)
    assert seconds_to_fail(lambda: storage.read_bytes("a"), "no answer") > 0.5


INTERRUPTED = """
import sys, threading
from cwerm.store.s3 import client as s3_client
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.claims import claimed
from cwerm.store.storage import open_storage

store = ArtifactStore(open_storage(sys.argv[1]))
with claimed(store, "ingest", "key"):
    print("ours", flush=True)
    sys.stdin.readline()  # the server has gone
    store.storage.upload(__import__("pathlib").Path(sys.argv[2]), "large")
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_ctrl_c_in_an_outage(
    seconds: float,
    mortal_server: Server,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "large").write_bytes(bytes(20 * 2**20))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, f"s3://{BUCKET}/store", str(tmp_path / "large")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_interruptions,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ours\n"
        mortal_server.kill()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.wait(20)


def test_ctrl_c_while_a_server_is_silent(
    silent: str,
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", silent)
    with start("gc", f"{s3_prefix}/store") as running:
        connected = _wait_for_connection(int(silent.rpartition(":")[2]))
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert connected
    assert (running.returncode, out) == (130, "")
    assert err.startswith("cwerm: interrupted")


def _wait_for_connection(port: int) -> bool:
    import psutil

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(c.raddr and c.raddr.port == port for c in psutil.net_connections("tcp")):
            return True
        time.sleep(0.05)
    return False


def test_workers_of_a_run_are_patient_from_the_start(ray_session: None) -> None:
    """Their first request may fall into an outage in mid-run."""
    import ray

    def seconds() -> tuple[float, str | None]:
        from botocore.exceptions import EndpointConnectionError

        from cwerm.store.s3 import client as s3_client
        from cwerm.store.s3 import outage as s3_outage

        error = socket.gaierror(socket.EAI_NONAME, "not known")
        failed = EndpointConnectionError(endpoint_url="http://x", error=error)
        known = s3_client.in_worker()
        return (
            s3_client._Patience("x").seconds,
            s3_outage.outage("GetObject", None, failed, known),
        )

    patience, passing = ray.get(ray.remote(seconds).remote())
    assert patience == 75
    assert passing
    assert s3_client._Patience("x").seconds == FIRST
    assert seconds()[1] is None
