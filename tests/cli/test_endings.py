"""How commands end that are told to; commands without standard streams, and in odd surroundings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from commands import MODULE, heed_interruptions, start, write_job

from cwerm.errors import UserError
from cwerm.job.tree import parse_job
from cwerm.runtime.session import private_session
from cwerm.runtime.session.joining import check_address

SECONDS = 20  # what is stuck would stay for minutes, or for good
ENDINGS = [
    pytest.param(signal.SIGTERM, 143),
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
]
LINE = "run the same command again to go on from here\n"
# Locks what it holds already: C code that no handler of Python interrupts
STUCK = """
import ctypes, subprocess
from cwerm.terminal import ending

ending.listen()
print(subprocess.Popen(["sleep", "300"]).pid, flush=True)
lock, c = ctypes.create_string_buffer(128), ctypes.CDLL(None)
c.pthread_mutex_lock(lock), c.pthread_mutex_lock(lock)
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes a connection, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(90)
        yield server


@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_ends_within_seconds_although_it_is_stuck(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interruptions,
    ) as stuck:
        assert stuck.stdout
        child = psutil.Process(int(stuck.stdout.readline()))
        time.sleep(0.2)
        stuck.send_signal(number)
        _, err = stuck.communicate(timeout=SECONDS)
    assert (stuck.returncode, err.count("\n")) == (code, 1)
    assert err.endswith(LINE)
    assert not psutil.wait_procs([child], timeout=5)[1]


def test_an_interrupted_import_changes_no_exit_code(tmp_path: Path) -> None:
    """Imports run strings, of data classes, say; Python keeps in mind that one was interrupted."""
    interrupted = """
import sys

from cwerm.terminal import ending

ending.listen()
try:
    exec("import signal; signal.raise_signal(signal.SIGINT)")
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "interrupted.py").write_text(interrupted)
    command = [sys.executable, "-m", "interrupted"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, preexec_fn=heed_interruptions) as process:
        assert process.wait(60) == 130


@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_ends_while_it_connects(
    silent: socket.socket, tmp_path: Path, number: int, code: int
) -> None:
    job = write_job(tmp_path, {"method": "erm", "data": {"source": "sample"}})
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    command = ("run", job, "--storage", tmp_path / "store", "--address", address)
    with start(*command) as running, silent.accept()[0]:
        time.sleep(0.3)
        running.send_signal(number)
        out, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, out, err.count("\n")) == (code, "", 1)
    assert err.endswith(LINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("moment", ["session", "train"])
def test_nothing_is_left_of_a_run(tmp_path: Path, moment: str, number: int, code: int) -> None:
    """As Ray starts, and in the middle of the training: no process."""
    store = tmp_path / "store"
    tree = {
        "method": "erm",
        "storage": str(store),
        "data": {"source": "sample", "limit": 400},
        "train": {"model": "resnet20", "epochs": 200, "batch_size": 50},
        "resources": {"workers": 2},
    }
    job = write_job(tmp_path, tree)
    with start("run", job) as running:
        if moment == "train":
            found = lambda: [*store.glob("runs/*/checkpoints/*/*/state.pt")]  # noqa: E731
        else:
            found = lambda: [p for p in _family(running.pid) if p.name() == "gcs_server"]  # noqa: E731
        end = time.monotonic() + 200
        while not found():
            assert running.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        family = _family(running.pid)
        assert family
        running.send_signal(number)
        _, err = running.communicate(timeout=SECONDS)
    assert (running.returncode, err.count("\n")) == (code, 1), err
    assert err.endswith(LINE)
    assert not psutil.wait_procs(family, timeout=2)[1]


def _family(pid: int) -> list[psutil.Process]:
    """All that it started and that lives."""
    family = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.name()  # known from now on, also when it is gone
            family.append(process)
    return family


@pytest.mark.slow
def test_a_run_without_standard_streams_and_with_a_long_folder(tmp_path: Path) -> None:
    long = tmp_path / ("scratch-" * 10)
    long.mkdir()
    job = write_job(tmp_path, {"method": "erm", "data": {"source": "sample", "limit": 400}})
    words = [*MODULE, "stage", "ingest", str(job), "--storage"]
    for number, closed in enumerate(("<&- >&- 2>&-", "2>&-")):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *words, str(tmp_path / f"store-{number}")],
            env={**os.environ, "TMPDIR": str(long)},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (
        "TMPDIR is too long for the paths of Ray's sockets; Ray's files are in /tmp" in done.stdout
    )


@pytest.mark.slow
def test_the_longest_folder_for_a_session(tmp_path: Path) -> None:
    """One letter more and Ray could not start; its files stay where they are asked for."""
    name = f"{os.getpid()}".ljust(private_session.LONGEST_BASE - len("/tmp/"), "x")
    base = Path("/tmp", name)
    job = write_job(tmp_path, {"method": "erm", "data": {"source": "sample", "limit": 400}})
    with pytest.MonkeyPatch.context() as env:
        env.setenv("RAY_TMPDIR", str(base))
        with start("stage", "ingest", job, "--storage", tmp_path / "store") as running:
            out, err = running.communicate(timeout=200)
    assert (running.returncode, err) == (0, ""), out
    assert [*base.glob("cwerm-*/r/session_*/logs/*")]
    subprocess.run(["rm", "-r", str(base)], check=True)


CIRCLE = """
import gc
from ray._private import worker
from cwerm.runtime.session import private_session

private_session.start(num_cpus=1)
gc.disable()
worker._global_node.itself = worker._global_node
"""


def test_nothing_is_left_of_a_session_that_a_circle_holds() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path
        environment = {**os.environ, "TMPDIR": folder}
        subprocess.run([sys.executable, "-c", CIRCLE], env=environment, check=True, timeout=200)
        assert not [*Path(folder).glob("cwerm-*")]


def test_a_folder_that_is_too_long_for_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 40)))
    with pytest.raises(UserError, match=r"^RAY_TMPDIR: .* of at most \d+ characters"):
        private_session.start()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://10.0.0.1:8265", "is the address of a dashboard: `cwerm submit"),
        ("ray://10.0.0.1:10001", "is an address of Ray Client"),
        ("10.0.0.1:x", "is no HOST:PORT"),
        ("10.0.0.1", "is no HOST:PORT"),
        ("10.0.0.1:6379/x", "is no HOST:PORT"),
        ("two words", "is no HOST:PORT"),
        ("10.0.0.1:99999", "is no HOST:PORT"),
    ],
)
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str, words: str) -> None:
    """The line names the setting that it came from."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    tree = {"data": {"source": "sample"}}
    with pytest.raises(UserError) as refusal:
        check_address(parse_job(tree))
    assert str(refusal.value).startswith(f"RAY_ADDRESS: '{address}' {words}")
    with pytest.raises(UserError) as refusal:
        check_address(parse_job({**tree, "resources": {"address": address}}))
    assert str(refusal.value).startswith(f"resources.address: '{address}' {words}")


@pytest.mark.timeout(60)
def test_a_cluster_that_was_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's record of it stays, and Ray itself tries it for minutes."""
    from ray._private import services

    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # others may run on this machine
    job = parse_job({"data": {"source": "sample"}, "resources": {"address": "auto"}})
    with pytest.raises(UserError, match="none was started on this machine"):
        check_address(job)
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    with pytest.raises(UserError, match=r"^resources.address: no Ray cluster at '127.0.0.1:9'"):
        check_address(job)
