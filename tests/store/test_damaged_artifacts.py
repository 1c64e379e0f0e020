"""What is damaged in a store is an error in one line, with the remedy; never a wrong answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_artifacts import flip, make, meta_table

from cwerm.errors import UserError
from cwerm.store.artifacts import ArtifactStore
from cwerm.store.writing import Writer


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


DAMAGES = {"flipped byte": flip, "cut short": _cut, "deleted": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["meta-00001.parquet", "notes.txt"])
def test_damage_is_an_error_that_names_folder_and_remedy(
    local: ArtifactStore, damage: Any, name: str
) -> None:
    made = make(local)
    folder = Path(local.storage.root, made.folder)
    (target,) = folder.rglob(name)
    damage(target)
    read, what = (local.read_file, name) if name == "notes.txt" else (local.read, "meta")
    with pytest.raises(UserError) as caught:
        read(made, what)
    message = str(caught.value)
    assert str(folder) in message
    assert name in message
    remedy = f"; run `cwerm repair {local.storage.root} --delete`, and the job again"
    assert message.endswith(remedy)
    assert "\n" not in message
    if damage is not flip:  # of which the size says nothing
        with pytest.raises(UserError, match="corrupt artifact"):
            local.find("select", "key")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"{}",
        b'{"tables": [], "files": {}, "info": {}, "seconds": 1}',
        b'{"tables": {"meta": 5}, "files": {}, "info": {}, "seconds": 1}',
        b'{"tables": {"meta": [{"name": "x"}]}, "files": {}, "info": {}, "seconds": 1}',
        b'{"tables": {"meta": [5]}, "files": {}, "info": {}, "seconds": 1}',
    ],
)
def test_a_garbage_manifest_is_an_error(local: ArtifactStore, manifest: bytes) -> None:
    folder = make(local).folder
    local.storage.write_bytes(f"{folder}/manifest.json", manifest)
    with pytest.raises(UserError, match=r"corrupt artifact .*select/key.*manifest.json can't be"):
        local.find("select", "key")


def test_damage_of_an_intermediate_result_is_an_error(local: ArtifactStore) -> None:
    writer = Writer(local, "select", "key", {})
    file = writer.write_unpublished("meta", 0, meta_table(0))
    assert writer.read_unpublished(file).equals(meta_table(0))
    for damage in DAMAGES.values():
        damage(Path(local.storage.root, "artifacts/select/key", file.path))
        with pytest.raises(UserError, match=r"corrupt artifact .*meta-00000\.parquet"):
            writer.read_unpublished(file)


def test_after_the_remedy_the_artifact_is_made_again(local: ArtifactStore) -> None:
    made = make(local)
    shutil.rmtree(Path(local.storage.root, made.folder))
    assert local.find("select", "key") is None
    assert local.read(make(local), "meta").equals(meta_table(0, 6))
