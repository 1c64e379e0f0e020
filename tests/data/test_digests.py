"""Digests of files' content: always right, and remembered only where that is safe."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cwerm.data.files import digests as module
from cwerm.data.files.digests import changed, digests
from cwerm.errors import UserError

TOLD = "remembered for next time"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files whose digests are worth being remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "WORTH_SECONDS", -1.0)
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.0)
    folder = tmp_path / "data"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.png").write_text(name)
    return folder


PATHS = ["one/a.png", "two/a.png"]


def right(data: Path) -> bool:
    found = digests(str(data), PATHS)
    return {path: entry[0] for path, entry in found.items()} == {
        path: hashlib.sha256((data / path).read_bytes()).hexdigest() for path in PATHS
    }


def memory(data: Path) -> Path:
    (path,) = data.parent.joinpath("cache/cwerm/digests").iterdir()
    return path


def test_what_does_not_change_is_hashed_once(data: Path, capfd: Capture) -> None:
    assert right(data)
    out = capfd.readouterr().out
    assert f"hashed 6 bytes of '{data}'" in out
    assert TOLD in out
    assert right(data)
    assert capfd.readouterr().out == ""


def test_of_two_sources_in_one_folder_both_are_remembered(data: Path, capfd: Capture) -> None:
    for path in PATHS:
        digests(str(data), [path])
    assert "hashed 3 bytes" in capfd.readouterr().out
    assert right(data)
    assert capfd.readouterr().out == ""
    (data / PATHS[0]).unlink()
    (data / PATHS[1]).write_text("new")
    digests(str(data), PATHS[1:])
    assert b"one/a.png" not in memory(data).read_bytes(), "what is gone is forgotten"


def test_what_changes_is_hashed_again_even_with_its_size_and_time_kept(data: Path) -> None:
    assert right(data)
    before = os.stat(data / PATHS[0])
    (data / PATHS[0]).write_text("eno")
    os.utime(data / PATHS[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(data / PATHS[0]).st_size == before.st_size
    assert right(data)
    (data / "swap").write_text("owt")
    os.utime(data / "swap", ns=(before.st_atime_ns, before.st_mtime_ns))
    (data / "swap").replace(data / PATHS[1])
    assert right(data)


def test_what_was_written_a_moment_ago_is_not_remembered(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", 60.0)
    for _ in range(2):
        assert right(data)
        assert "hashed 6 bytes" in capfd.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "folder"])
def test_a_damaged_memory_is_none(data: Path, capfd: Capture, damage: str) -> None:
    assert right(data)
    path = memory(data)
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        digest = hashlib.sha256(b"one").hexdigest().encode()
        path.write_bytes(
            {
                "cut": whole[:-5],
                "flipped": whole.replace(digest, digest[::-1]),
                "empty": b"",
                "other": b"\xff\xfe\n[[[",
            }[damage]
        )
    capfd.readouterr()
    assert right(data)
    assert "hashed 6 bytes" in capfd.readouterr().out
    if damage != "folder":
        assert right(data)
        assert capfd.readouterr().out == "", "it was replaced by a sound one"


def test_a_cache_folder_that_can_not_be_written(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    (data.parent / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(data.parent / "file"))
    for _ in range(2):
        assert right(data)
        assert "not remembered, as '" in capfd.readouterr().out


def test_many_at_once(data: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, [data] * 40))
    assert [path.suffix for path in memory(data).parent.iterdir()] == [".json"], "nothing is left"
    assert right(data)


def test_a_file_that_is_gone_or_no_file(data: Path) -> None:
    (data / PATHS[0]).unlink()
    with pytest.raises(UserError, match=r"one/a\.png' was there when .* and is gone"):
        digests(str(data), PATHS)
    (data / PATHS[0]).mkdir()
    with pytest.raises(UserError, match=r"one/a\.png' can't be read \(Is a directory\)"):
        digests(str(data), PATHS)


def test_the_same_content_under_another_state(data: Path) -> None:
    seen = digests(str(data), PATHS)
    os.utime(data / PATHS[0], ns=(1, 1))
    assert changed(str(data), seen) is None
    (data / PATHS[0]).write_text("eno")
    assert changed(str(data), seen) == PATHS[0]


def test_many_files_of_many_sizes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 3)
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    paths = [f"one/{number}" for number in range(50)]
    for number, path in enumerate(paths):
        (data / path).write_bytes(bytes([number]) * (17 * number))
    found = digests(str(data), paths)
    assert list(found) == paths
    for path in paths:
        assert found[path][0] == hashlib.sha256((data / path).read_bytes()).hexdigest()


def test_without_a_home(data: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.chdir(data)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where nobody knows the user
    assert right(data)
    assert "not remembered, as there is no home folder" in capfd.readouterr().out
    assert sorted(os.listdir(data)) == ["one", "two"]
