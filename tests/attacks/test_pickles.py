"""Files that are pickles by nature: none runs code, with the right checksum or without."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from attacks.payload import Payload, pickled
from cwerm.algorithms.networks.features import load_backbone
from cwerm.data.public import cifar
from cwerm.errors import UserError


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_backbone(tmp_path: Path, suffix: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / f"weights{suffix}"
    pickled(mark)
    for legacy in (True, False):
        torch.save({"conv": Payload(mark)}, file, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=f"weights file {file} "):
            load_backbone("resnet20", str(file))
    file.write_bytes(pickled(mark))
    with pytest.raises(ValueError, match=f"weights file {file} "):
        load_backbone("resnet20", str(file))
    assert not mark.exists()


@pytest.mark.parametrize("knows_the_checksum", [False, True])
@pytest.mark.parametrize("dataset", ["CIFAR10", "CIFAR100"])
def test_the_files_of_cifar(
    tmp_path: Path, dataset: str, knows_the_checksum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    known = getattr(datasets, dataset)
    mark, folder = tmp_path / "mark", tmp_path / known.base_folder
    folder.mkdir()
    payload = pickled(mark)
    lists = [f"{split}_list" for split in ("train", "test")]
    for name in [*(name for files in lists for name, _ in getattr(known, files)), "meta"]:
        (folder / name).write_bytes(payload)
    (folder / known.meta["filename"]).write_bytes(payload)
    if knows_the_checksum:  # as who finds two files of one MD5 does
        digest = hashlib.md5(payload).hexdigest()
        for files in lists:
            monkeypatch.setattr(known, files, [(name, digest) for name, _ in getattr(known, files)])
        monkeypatch.setattr(known, "meta", {**known.meta, "md5": digest})
    source = getattr(cifar, dataset.capitalize())(str(tmp_path))
    for read in (source.fingerprint, source.class_names):
        with pytest.raises(UserError, match="is incomplete or damaged"):
            read()
    assert not mark.exists()


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickled(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
