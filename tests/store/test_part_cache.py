"""Parts that are kept on a disk nearby: bounded, checked, and never in the way."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import time
from pathlib import Path

import pytest
from store.small_artifacts import flip, make

from cwerm.store import part_cache
from cwerm.store.artifacts import ArtifactStore, CorruptArtifactError
from cwerm.store.part_cache import UNUSED_SECONDS, PartCache


def put(cache: PartCache, data: bytes) -> str:
    checksum = hashlib.sha256(data).hexdigest()
    cache.put(checksum, data)
    return checksum


def test_what_was_put_is_there_for_others(tmp_path: Path) -> None:
    checksum = put(PartCache(100, tmp_path / "parts"), b"abc")
    assert PartCache(100, tmp_path / "parts").get(checksum) == b"abc"
    assert PartCache(100, tmp_path / "parts").get("0" * 64) is None
    assert stat.S_IMODE((tmp_path / "parts").stat().st_mode) == 0o700


def test_it_does_not_grow_over_its_bound(tmp_path: Path) -> None:
    cache = PartCache(100, tmp_path)
    found = [cache.get(put(cache, bytes([i]) * 30)) for i in range(5)]
    assert [data is not None for data in found] == [True, True, True, False, False]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 90


def test_what_nobody_has_read_for_a_day_makes_room(tmp_path: Path) -> None:
    cache = PartCache(100, tmp_path)
    old, other, young = (put(cache, bytes([i]) * 30) for i in range(3))
    long_ago = time.time() - UNUSED_SECONDS - 60
    for name in (old, other):
        os.utime(tmp_path / name, (long_ago, long_ago))
    assert cache.get(other) is not None  # which is a use
    new = put(cache, b"n" * 40)
    assert [cache.get(name) is not None for name in (old, other, young, new)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_damaged_file_is_removed_and_counts_as_none(tmp_path: Path) -> None:
    cache = PartCache(100, tmp_path)
    checksum = put(cache, b"whole")
    (tmp_path / checksum).write_bytes(b"whale")
    assert cache.get(checksum) is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("bound", [0, 100])
def test_nothing_is_kept_where_nothing_can_be(tmp_path: Path, bound: int) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = PartCache(bound, tmp_path / "file" / "parts" if bound else tmp_path / "parts")
    assert cache.get(put(cache, b"abc")) is None
    assert not (tmp_path / "parts").exists()


def test_a_part_is_fetched_once_by_all_that_share_it(local: ArtifactStore, tmp_path: Path) -> None:
    """And no damage of the store's own part is seen any more: what is kept has its checksum."""
    made = make(local)
    near = ArtifactStore(local.storage, PartCache(10_000, tmp_path / "parts"))
    first = near.read_part(made, "meta", 0, hold=False)
    flip(tmp_path / made.folder / made.tables["meta"][0].path)
    again = pickle.loads(pickle.dumps(near))
    assert again.read_part(made, "meta", 0, hold=False).equals(first)
    with pytest.raises(CorruptArtifactError, match="checksum"):
        ArtifactStore(local.storage, PartCache(0)).read_part(made, "meta", 0, hold=False)


def test_what_a_stage_writes_is_near_to_the_next(local: ArtifactStore, tmp_path: Path) -> None:
    near = ArtifactStore(local.storage, PartCache(10_000, tmp_path / "parts"))
    made = make(near)
    for file in made.tables["meta"]:
        (tmp_path / made.folder / file.path).unlink()
    assert near.read(made, "meta").num_rows == made.rows("meta")
    with pytest.raises(CorruptArtifactError, match="missing"):
        near.find(made.stage, made.key)


def test_what_others_keep_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once: a folder of many parts is not listed for each."""
    one, other = PartCache(100, tmp_path), PartCache(100, tmp_path)
    put(one, b"a" * 30)
    put(other, b"b" * 60)
    monkeypatch.setattr(part_cache, "LOOK_SECONDS", 0.0)
    assert one.get(put(one, b"c" * 30)) is None
    assert one.get(put(one, b"d" * 10)) is not None
