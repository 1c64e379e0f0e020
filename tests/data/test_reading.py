"""A file that can't be read: a passing error is waited out, a lasting one names the file."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cwerm.data import open_source
from cwerm.data.files.reading import patiently_each
from cwerm.data.source import Source
from cwerm.errors import UserError


def folder_source(folder: Path) -> Source:
    for name in ("a/1.png", "b/2.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    return open_source(str(folder))


def read(source: Source) -> list[bytes]:
    samples = [s for chunk in source.chunks("train", 10) for s in source.read(chunk)]
    return [bytes(sample.image) for sample in samples]


@contextmanager
def no_file_left_to_open() -> Iterator[None]:
    """Every open fails with EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_many_open_files_is_no_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder_source(tmp_path)
    monkeypatch.setattr("cwerm.data.files.reading.WAITS", (0.01,))
    with no_file_left_to_open(), pytest.raises(UserError) as caught:
        read(source)
    assert f"'{tmp_path}/a/1.png' can't be read (Too many open files)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_open_files_while_decoding() -> None:
    """Pillow loads the reader of a format when it meets the first such image."""
    program = (
        "import resource\n"
        "from cwerm.data.images import decode\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: decode(b'8BPS' + bytes(100))\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == f"{errno.EMFILE}\n", done


def test_a_passing_error_is_waited_out(tmp_path: Path) -> None:
    source = folder_source(tmp_path)
    ended = threading.Event()
    with no_file_left_to_open():
        lift = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        timer = threading.Timer(
            0.3,
            lambda: (resource.setrlimit(resource.RLIMIT_NOFILE, (lift, lift)), ended.set()),
        )
        timer.start()
        assert read(source) == [b"a/1.png", b"b/2.png"]
        timer.join()
    assert ended.is_set()


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("no file here whose reading fails")
    source = folder_source(tmp_path)
    (tmp_path / "a/1.png").unlink()
    (tmp_path / "a/1.png").symlink_to(memory)  # its first page can't be read: EIO
    monkeypatch.setattr("cwerm.data.files.reading.WAITS", (0.01,))
    with pytest.raises(UserError, match=r"a/1\.png' can't be read \(Input/output error\)"):
        read(source)
    with pytest.raises(UserError, match=r"a/1\.png' can't be read \(Input/output error\)"):
        source.fingerprint()


def test_a_file_that_may_not_be_read() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        source = folder_source(Path(folder))
        (Path(folder) / "b/2.png").chmod(0)
        if not user:
            os.seteuid(65534)  # nothing is forbidden to root
        try:
            for use in (lambda: read(source), source.fingerprint):
                with pytest.raises(UserError, match=r"b/2\.png' can't be read \(Permission denied"):
                    use()
        finally:
            os.seteuid(user)


def test_a_file_that_vanishes_after_it_was_listed(tmp_path: Path) -> None:
    source = folder_source(tmp_path)
    (tmp_path / "b/2.png").unlink()
    for use in (lambda: read(source), source.fingerprint):
        with pytest.raises(UserError, match=r"b/2\.png' was there when .* and is gone"):
            use()
    (tmp_path / "b").rmdir()
    with pytest.raises(UserError, match=r"b/2\.png' was there"):
        read(source)


def test_a_stream_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / str(number)).write_text(str(number))
    starts = []

    def read(start: int) -> Iterator[str]:
        starts.append(start)
        for number in range(start, 6):
            yield (tmp_path / str(number)).read_text()

    stream = patiently_each(read, 0)
    assert [next(stream) for _ in range(3)] == ["0", "1", "2"]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with no_file_left_to_open():
        timer = threading.Timer(0.3, resource.setrlimit, (resource.RLIMIT_NOFILE, before))
        timer.start()
        assert [*stream] == ["3", "4", "5"]
        timer.join()
    assert len(starts) > 1
    assert set(starts[1:]) == {3}
    (tmp_path / "5").unlink()
    with pytest.raises(FileNotFoundError):
        [*patiently_each(read, 4)]
