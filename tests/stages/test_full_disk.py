"""A storage without space: one line, nothing half-written, and the stage goes on once there is some."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cwerm.errors import UserError
from cwerm.upkeep.garbage import PARTIAL
from stages.conftest import STAGES, Chain, Fork, run_stages
from stages.test_kill import assert_same_weights, committed

SIZE = 64 * 2**20
# Of these the small job makes nothing, or only what fits.
LITTLE = ("embed_val", "judge_test", "select")
LEFT = 16 * 2**10  # a small marker fits, a table or a model does not


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount`")
    if done.returncode:
        pytest.skip(
            f"a small file system can't be mounted, which needs root: {done.stderr.strip()}"
        )
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def almost_full(folder: Path) -> Iterator[None]:
    """Fill the file system up to `LEFT` bytes."""
    found = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(b"\0" * (found.f_bavail * found.f_frsize - LEFT))
    yield
    ballast.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in LITTLE])
def test_it_goes_on_once_there_is_space(
    stage: str, request: pytest.FixtureRequest, fork: Fork, small_disk: Path
) -> None:
    reference: Chain = request.getfixturevalue("trained" if stage == "train" else "chain")
    ranks = {"resources__workers": 2} if stage == "train" else {}
    mine = fork(stage, folder=small_disk, **ranks)
    with (
        almost_full(small_disk),
        pytest.raises(UserError, match=rf"no space is left at '{small_disk}'"),
    ):
        mine.run(stage)
    assert committed(mine, stage) is None
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    assert not [name for name in left if PARTIAL.fullmatch(name)]
    assert_same_weights(mine, reference)
    if stage == "train":
        found = run_stages(mine.job, "train").made["train"]
        assert found.info["test_accuracy"] == reference.made["train"].info["test_accuracy"]
