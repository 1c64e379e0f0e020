"""A store that several people, or a file system of less abilities, share; and clocks that differ."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cwerm.errors import UserError
from cwerm.store import exclusive
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.claims import claimed
from cwerm.store.storage import LocalStorage, open_storage
from cwerm.store.writing import Writer
from cwerm.upkeep.garbage import collect_garbage

NOBODY = 65534
AS_NOBODY = f"""
import os, pwd, sys
from cwerm.store.storage import open_storage  # before, as another may not read Python's own folder
os.umask(0o22)
os.setgid({NOBODY}); os.setuid({NOBODY})
storage = open_storage(sys.argv[1])
for path in sys.argv[2:]:
    storage.write_bytes(path, b"second")
    storage.write_bytes(path + ".new", b"second", if_absent=True)
"""


@pytest.fixture(params=["no links", "neither"])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links, and one that can't rename without replacing either."""

    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    if request.param == "neither":
        monkeypatch.setattr(exclusive, "_rename_without_replacing", lambda *_: None)


def test_of_many_writers_one_wins_and_readers_see_all_of_it(no_links: None, tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    whole = {f"{name}" * 200_000 for name in "abcdefgh"}
    for round_ in range(20):
        path, start, seen = f"x/{round_}", threading.Barrier(9), list[str]()

        def read(path: str = path, start: Any = start, seen: list[str] = seen) -> None:
            start.wait()
            for _ in range(200):
                try:
                    seen.append(storage.read_bytes(path).decode())
                except FileNotFoundError:
                    continue

        def write(text: str, path: str = path, start: Any = start) -> bool:
            start.wait()
            return storage.write_bytes(path, text.encode(), if_absent=True)

        with ThreadPoolExecutor(9) as pool:
            reading = pool.submit(read)
            won = [*pool.map(write, sorted(whole))]
            reading.result()
        assert won.count(True) == 1
        winner = sorted(whole)[won.index(True)]
        assert storage.read_bytes(path).decode() == winner
        assert set(seen) <= {winner}
    assert {entry.path for entry in storage.walk("")} == {f"x/{i}" for i in range(20)}
    assert not list(tmp_path.rglob("*.held"))


def test_an_artifact_is_made_without_hard_links(no_links: None, tmp_path: Path) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    with claimed(store, "select", "key") as made:
        assert made is None
        first = Writer(store, "select", "key", {}).commit({}, {"a": 1})
    second = Writer(store, "select", "key", {}).commit({}, {"a": 2})
    assert second == first


def test_a_name_whose_holder_died_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive, "HELD_SECONDS", 0.3)
    (tmp_path / ".target.held").mkdir()
    (tmp_path / "partial").write_bytes(b"1")
    started = time.monotonic()
    assert exclusive._rename_while_held(tmp_path / "partial", tmp_path / "target")
    assert 0.3 < time.monotonic() - started < 10
    assert (tmp_path / "target").read_bytes() == b"1"
    assert not (tmp_path / ".target.held").exists()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be another user")
def test_a_second_user_writes_to_a_shared_store(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents[:2]]:
        parent.chmod(0o755)
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o1777)
    before = os.umask(0o22)
    try:
        storage = open_storage(str(root))
        storage.write_bytes("runs/x/summary.json", b"first")
        storage.write_bytes("artifacts/select/key/claims/000001.json", b"first")
    finally:
        os.umask(before)
    paths = ["runs/x/summary.json", "artifacts/select/key/parts/a.json"]
    command = [sys.executable, "-c", AS_NOBODY, str(root), *paths]
    subprocess.run(command, check=True, env={**os.environ, "HOME": "/nonexistent"})
    assert storage.read_bytes("runs/x/summary.json") == b"second"
    assert (root / "runs/x/summary.json.new").stat().st_uid == NOBODY
    storage.write_bytes("artifacts/select/key/parts/b.json", b"first")


@pytest.mark.parametrize(
    ("root_mode", "folder_mode", "file_mode"),
    [(0o755, 0o755, 0o644), (0o1777, 0o777, 0o666), (0o2775, 0o2775, 0o664), (0o700, 0o755, 0o644)],
)
def test_what_is_made_in_a_shared_store_is_shared(
    tmp_path: Path, root_mode: int, folder_mode: int, file_mode: int
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(root_mode)
    before = os.umask(0o22)
    try:
        storage = open_storage(str(root))
        storage.write_bytes("a/b/c", b"1")
        storage.write_bytes("a/b/d", b"1", if_absent=True)
        storage.upload(root / "a/b/c", "e/f")
    finally:
        os.umask(before)
    for folder in ("a", "a/b", "e"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == folder_mode
    for file in ("a/b/c", "a/b/d", "e/f"):
        assert stat.S_IMODE((root / file).stat().st_mode) == file_mode


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be another user")
def test_a_folder_that_is_not_shared_is_one_line(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents[:2]]:
        parent.chmod(0o755)
    root = tmp_path / "store"
    (root / "runs").mkdir(parents=True)
    (root / "runs").chmod(0o755)
    root.chmod(0o777)
    command = [sys.executable, "-c", AS_NOBODY, str(root), "runs/x"]
    answer = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    last = answer.stderr.splitlines()[-1]
    assert "UserError: storage: " in last
    assert f"{root}/runs/x' can't be written (Permission denied), whose owner is root" in last


def test_gc_goes_by_the_clock_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This machine's clock is a day ahead, or behind: what is young stays all the same."""
    store = ArtifactStore(open_storage(str(tmp_path)))
    writer = Writer(store, "select", "key", {})
    writer.write_file("lost", b"1")
    now = time.time_ns
    for shift in (-1, 1):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: now() + shift * 24 * 3600 * 10**9)
        collect_garbage(str(tmp_path), delete=True, older_than_hours=1)
        assert capsys.readouterr().out == "nothing to remove\n"
        os.utime(tmp_path / f"artifacts/select/key/{writer.attempt}/lost")
    (tmp_path / "artifacts/select/key" / writer.attempt / "lost").touch()
    old = time.time() - 7200
    os.utime(tmp_path / f"artifacts/select/key/{writer.attempt}/lost", (old, old))
    monkeypatch.setattr(time, "time_ns", lambda: now() - 24 * 3600 * 10**9)
    collect_garbage(str(tmp_path), delete=True, older_than_hours=1)
    assert "lost attempt" in capsys.readouterr().out


@pytest.mark.parametrize(
    "claim",
    [b"", b"null", b"[]", b"5", b'"x"', b"{}", b"\xff", b'{"token": 1}', b"[" * 100_000,
     b'{"token": "t", "beat": 1, "host": "h", "machine": [], "process": 1, "started": 1}',
     b'{"token": "t", "beat": 1, "host": "h", "machine": "m", "process": -5, "started": 1}'],
)  # fmt: skip
def test_a_damaged_claim_holds_nobody_up(
    tmp_path: Path, claim: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(open_storage(str(tmp_path)))
    store.storage.write_bytes("artifacts/select/key/claims/000001.json", claim)
    with claimed(store, "select", "key") as made:
        assert made is None
        Writer(store, "select", "key", {}).commit({})
    assert "takes over from a damaged claim" in capsys.readouterr().out
    assert not [*store.storage.walk("artifacts/select/key/claims")]


def test_what_another_wrote_in_a_claim_is_printed_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cwerm.terminal import console

    console.note("[red]host[/nothing]")
    assert "[red]host[/nothing]" in capsys.readouterr().out


def test_a_permission_is_told_once(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="can't be written"):
        open_storage(str(tmp_path)).check_writable()
