"""A source in a bucket is known by its objects' ETags, on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_store import s3_prefix  # noqa: F401

from cwerm.data import open_source
from cwerm.data.files import file_source
from cwerm.errors import UserError
from cwerm.store.storage import open_storage

FILES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/1.png": b"dog"}


def put(uri: str, content: dict[str, bytes]) -> str:
    storage = open_storage(uri)
    for path, data in content.items():
        storage.write_bytes(path, data)
    return uri


@pytest.mark.parametrize("few", [0, 100], ids=["listed", "asked one by one"])
def test_the_content_counts(
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(file_source, "FEW", few)
    uri = put(f"{s3_prefix}/a", FILES)
    first = open_source(uri).fingerprint()
    assert open_source(put(f"{s3_prefix}/another name", FILES)).fingerprint() == first
    put(uri, FILES)  # again, with a new time
    assert open_source(uri).fingerprint() == first
    swapped = {**FILES, "cat/1.png": b"two", "cat/2.png": b"one"}
    changes = {open_source(put(f"{s3_prefix}/b", swapped)).fingerprint()}
    renamed = {path.replace("cat", "cow"): data for path, data in FILES.items()}
    changes.add(open_source(put(f"{s3_prefix}/c", renamed)).fingerprint())
    assert len({first, *changes}) == 3


@pytest.mark.parametrize("few", [0, 100], ids=["listed", "asked one by one"])
def test_a_change_after_the_listing_is_noticed(
    s3_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    few: int,
) -> None:
    monkeypatch.setattr(file_source, "FEW", few)
    source = open_source(put(s3_prefix, FILES))
    source.fingerprint()
    put(s3_prefix, FILES)
    source.check_unchanged()
    put(s3_prefix, {"cat/2.png": b"owt"})
    with pytest.raises(UserError, match=r"cat/2\.png' changed while it was read"):
        source.check_unchanged()
    open_storage(s3_prefix).delete("cat/2.png")
    for use in (source.check_unchanged, source.fingerprint):
        with pytest.raises(UserError, match=r"cat/2\.png' was there when .* and is gone"):
            use()
    with pytest.raises(UserError, match=r"cat/2\.png' was there"):
        [*source.read(source.chunks("train", 10)[0])]


def test_what_lies_beside_images_in_a_bucket(s3_prefix: str) -> None:  # noqa: F811
    images = [
        "Training/cat/1.jpe",
        "Training/cat/deep/2",
        "Training/dog/3.HEIC",
        "Testing/dog/4.PNG",
    ]
    beside = [
        "Training/cat/@eaDir/1.jpe/t.jpg",
        "__MACOSX/Training/cat/._1.jpe",
        "Training/.DS_Store",
    ]
    beside += ["Training/dog/notes.txt", "labels.csv", "Training/dog/.hidden/5.png"]
    source = open_source(put(s3_prefix, dict.fromkeys([*images, *beside], b"x")))
    found = {
        split: sorted(s.path for chunk in source.chunks(split, 9) for s in source.read(chunk))
        for split in ("train", "test")
    }
    assert found == {"train": images[:3], "test": images[3:]}
    assert source.origin("test") == "Testing/"
    assert source.remarks() == [
        "left out: 1 x .csv, 1 x .txt, 1 x folder .hidden, 1 x folder @eaDir, 1 x folder __MACOSX, "
        "1 x hidden file"
    ]


def test_one_object(s3_prefix: str, small_data: Path) -> None:  # noqa: F811
    storage = open_storage(s3_prefix)
    storage.upload(small_data / "train.parquet", "a/train.parquet")
    storage.upload(small_data / "train.parquet", "b/train.parquet")
    found = {open_source(f"{s3_prefix}/{name}/train.parquet").fingerprint() for name in "ab"}
    assert len(found) == 1
