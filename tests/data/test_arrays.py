"""MNIST, Fashion-MNIST and CIFAR from files as their publishers write them."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from reading_sources import read_all

from cwerm.data import open_source
from cwerm.data.public.fashion_mnist import DEBIAN_FOLDER
from cwerm.data.public.mnist import read_idx
from cwerm.errors import UserError

GENERATOR = np.random.default_rng(0)
COUNTS = {"train": 50, "t10k": 20}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_mnist(folder: Path, zipped: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True)
    data = {}
    for prefix, count in COUNTS.items():
        images = GENERATOR.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = GENERATOR.integers(0, 10, count, dtype=np.uint8)
        for name, array in [("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)]:
            content = gzip.compress(idx(array)) if zipped else idx(array)
            suffix = ".gz" if zipped else ""
            (folder / f"{prefix}-{name}{suffix}").write_bytes(content)
        data[prefix] = images, labels
    return data


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_files(tmp_path: Path, name: str, folder: str, zipped: bool) -> None:
    data = write_mnist(tmp_path / folder / "raw" if not zipped else tmp_path / "flat", zipped)
    root = tmp_path / "flat" if zipped else tmp_path
    source = open_source(name, root=str(root))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        samples = read_all(source, split)
        np.testing.assert_array_equal([sample.image for sample in samples], data[prefix][0])
        np.testing.assert_array_equal([sample.label for sample in samples], data[prefix][1])
        assert samples[17].path == f"{split}-images[17]"
    assert [chunk.size for chunk in source.chunks("train", 15)] == [15, 15, 15, 5]
    assert source.chunks("val", 15) == []


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    write_mnist(tmp_path / "a", zipped=False)
    (tmp_path / "b").mkdir()
    for file in (tmp_path / "a").iterdir():
        (tmp_path / "b" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    write_mnist(tmp_path / "c", zipped=False)
    prints = [open_source("mnist", root=str(tmp_path / name)).fingerprint() for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_damaged_idx_files(tmp_path: Path) -> None:
    whole = idx(np.zeros((3, 4), np.uint8))
    for content in (b"", whole[:-1], whole + b"x", b"<html>" + whole):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(UserError, match=r"^data\.root: '.*' is not a whole IDX file"):
            read_idx(tmp_path / "a")
    for content in (b"x", gzip.compress(whole)[:-9]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"^data\.root: '.*a\.gz' is damaged .*fetch it again$"):
            read_idx(tmp_path / "a.gz")


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings of Python 2."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def old_numpy_pickle(content: object) -> bytes:
    """As NumPy 1 pickled for Python 2, with integers for the flags of the dtype."""
    false_true_tuple, zero_one_tuple = b"\x89\x88\x87", b"K\x00K\x01\x87"
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(false_true_tuple, zero_one_tuple)


def write_cifar(
    root: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Small files in CIFAR's layout; torchvision is told their hashes in place of the real ones."""
    from torchvision import datasets

    cifar = getattr(datasets, dataset)
    folder = root / cifar.base_folder
    folder.mkdir()
    key = "labels" if dataset == "CIFAR10" else "fine_labels"

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(old_numpy_pickle(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    data = {}
    for split in ("train", "test"):
        files, images, labels = [], [], []
        for name, _ in getattr(cifar, f"{split}_list"):
            values = GENERATOR.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
            codes = GENERATOR.integers(0, 10, 12).tolist()
            files.append([name, write(name, {"data": values.reshape(12, -1), key: codes})])
            images.append(values.transpose(0, 2, 3, 1))
            labels += codes
        monkeypatch.setattr(cifar, f"{split}_list", files)
        data[split] = np.concatenate(images), np.array(labels)
    names = [f"class {code}" for code in range(10)]
    meta = dict(cifar.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: names})
    monkeypatch.setattr(cifar, "meta", meta)
    return data


@pytest.mark.parametrize("dataset", ["CIFAR10", "CIFAR100"])
def test_cifar_files(tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_cifar(tmp_path, dataset, monkeypatch)
    source = open_source(dataset.lower(), root=str(tmp_path))
    for split, (images, labels) in data.items():
        samples = read_all(source, split)
        np.testing.assert_array_equal([sample.image for sample in samples], images)
        assert [sample.label for sample in samples] == labels.tolist()
    assert source.class_names() == [f"class {code}" for code in range(10)]
    folder = next(tmp_path.iterdir())
    next(folder.glob("test*")).write_bytes(b"half a file")
    with pytest.raises(
        UserError, match=rf"^data\.root: '{folder}' is incomplete or damaged; remove"
    ):
        source.load("test")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mnist", "put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and so on there"),
        ("cifar10", "put the folder cifar-10-batches-py there"),
        ("cifar100", "put the folder cifar-100-python there"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    tmp_path: Path, name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(UserError, match=rf"^data\.root: .*download failed .*{remedy}$"):
        open_source(name, root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_download_lands_whole_below_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    data = write_mnist(tmp_path / "served", zipped=True)
    hashes = {
        f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in (tmp_path / "served").iterdir()
    }
    monkeypatch.setattr(datasets.MNIST, "resources", list(hashes.items()))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        source = open_source("mnist", root=str(tmp_path / "root"))
        server.shutdown()
    images = [sample.image for sample in read_all(source, "train")]
    np.testing.assert_array_equal(images, data["train"][0])
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["MNIST"]


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^data\.root: CIFAR10 is not in '.*file' and its download"
    ):
        open_source("cifar10", root=str(tmp_path / "file"))


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_debians_fashion_mnist(tmp_path: Path) -> None:
    source = open_source("fashion_mnist", root=str(tmp_path))
    for split, count in (("train", 60_000), ("test", 10_000)):
        assert sum(chunk.size for chunk in source.chunks(split, 7_000)) == count
        labels = [sample.label for c in source.chunks(split, 7_000) for sample in source.read(c)]
        assert np.bincount(labels).tolist() == [count // 10] * 10
    assert source.class_names() is not None
    assert list(tmp_path.iterdir()) == []
