"""Tar shards: what WebDataset's own layout means, and what is no shard."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from object_store import s3_prefix  # noqa: F401
from reading_sources import fails, read_all

from cwerm.data import open_source
from cwerm.errors import UserError
from cwerm.store.storage import open_storage

Members = Sequence[tuple[str, bytes]]


def packed(members: Members) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def usual(count: int, first: int = 0) -> Members:
    """Images whose content is their own number, of classes 0, 1 and 2."""
    members = []
    for i in range(first, first + count):
        members += [(f"{i:05}.jpg", b"image %d" % i), (f"{i:05}.cls", b"%d\n" % (i % 3))]
    return members


def write(place: Path, members: Members) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(packed(members))
    return place


def test_samples_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "b.tar", usual(3, 10))
    write(tmp_path / "a.tar", usual(10))
    source = open_source(str(tmp_path))
    samples = read_all(source)
    numbers = [*range(10), *range(10, 13)]
    assert [sample.image for sample in samples] == [b"image %d" % i for i in numbers]
    assert [sample.label for sample in samples] == [i % 3 for i in numbers]
    assert samples[0].path == "a.tar/00000.jpg"
    assert [chunk.parts for chunk in source.chunks("train", 4)] == [(4, 4, 2), ()]
    assert source.origin("train") == "2 shards, a.tar to b.tar"


def test_names_of_shards_tell_the_split(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 20)):
        write(tmp_path / f"flowers-{split}-0000.tar", usual(4, first))
    source = open_source(str(tmp_path))
    assert [len(read_all(source, split)) for split in ("train", "test", "val")] == [4, 4, 0]


@pytest.mark.parametrize(
    ("member", "content", "label"),
    [
        ("1.cls", b"7", 7),
        ("1.txt", b"a cat\n", "a cat"),
        ("1.txt", b"7", "7"),
        ("1.label", "chat \u00e0".encode(), "chat \u00e0"),
        ("1.json", json.dumps({"label": "cat", "x": 1}).encode(), "cat"),
        ("1.json", b'{"label": 3}', 3),
    ],
)
def test_where_labels_lie(tmp_path: Path, member: str, content: bytes, label: str | int) -> None:
    """Also beside other members, before the image or after it."""
    others = [("1.caption", b"x"), ("1.PNG", b"image")]
    for members in ([(member, content), *others], [*others, (member, content)]):
        place = write(
            tmp_path / "a.tar", [*members, ("2.png", b"image"), (f"2{member[1:]}", content)]
        )
        (sample, _) = read_all(open_source(str(place)))
        assert (sample.label, sample.image) == (label, b"image")


def test_folders_hidden_files_and_long_names(tmp_path: Path) -> None:
    """Two samples of one name in two folders, what macOS adds, and names of over 100 letters."""
    long = f"b/{'x' * 150}"
    members = [
        ("a/1.jpg", b"1"), ("a/1.cls", b"0"), ("a/._1.jpg", b"?"), ("b/1.jpg", b"2"), ("b/1.cls", b"1"),
        (f"{long}.jpg", b"3"), (f"{long}.cls", b"0"),
    ]  # fmt: skip
    samples = read_all(open_source(str(write(tmp_path / "a.tar", members))))
    assert [sample.image for sample in samples] == [b"1", b"2", b"3"]
    assert samples[2].path == f"a.tar/{long}.jpg"


def test_a_sample_without_image_is_a_reject(tmp_path: Path) -> None:
    place = write(tmp_path / "a.tar", [*usual(2), ("x.cls", b"1"), *usual(1, 9)])
    samples = read_all(open_source(str(place)))
    assert [sample.problem for sample in samples] == ["", "", "no image in its sample", ""]


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([*usual(2), ("x.jpg", b"1")], "has no label of sample 'x'"),
        ([*usual(2), ("x.jpg", b"1"), ("x.png", b"1"), ("x.cls", b"1")], "two images of sample 'x'"),
        ([*usual(2), *usual(1)], "has two samples '00000'"),
        ([("x.jpg", b"1"), ("x.json", b"{}")], "has no 'label' in 'x.json'; set data.label_column"),
        ([("x.jpg", b"1"), ("x.json", b'{"label": [1]}')], "neither text nor a whole number"),
        ([("x.jpg", b"1"), ("x.txt", b"\xff")], "no text in UTF-8"),
        ([("x.jpg", b"1"), ("x.txt", b" ")], "an empty label in 'x.txt'"),
        ([("x.jpg", b"1"), ("x.txt", b"1" * 2**21)], "too large for a label"),
        ([], "has no training samples"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_sample(tmp_path: Path, members: Any, word: str) -> None:
    fails(write(tmp_path / "a.tar", members), word)


def test_an_archive_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    """Also between two members, where other programs see a shorter archive."""
    data = packed(usual(3))
    whole = 6 * 1024
    assert data[whole:].strip(b"\0") == b""
    for length in [*range(1, whole, 100), *range(512, whole + 1, 512)]:
        (tmp_path / "a.tar").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"is cut short; fetch it again|is no tar"):
            open_source(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes(b"no archive" * 200)
    fails(tmp_path / "a.tar", "is no tar archive, or is damaged")
    (tmp_path / "a.tar").write_bytes(data[: whole + 512])
    assert len(read_all(open_source(str(tmp_path / "a.tar")))) == 3


def test_links_are_not_followed(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    (tmp_path / "a.tar").write_bytes(data.getvalue())
    fails(tmp_path / "a.tar", "holds '1.jpg', which is no plain file")


def test_the_content_counts(tmp_path: Path) -> None:
    first = open_source(str(write(tmp_path / "a.tar", usual(3)))).fingerprint()
    assert open_source(str(tmp_path)).fingerprint() == first
    assert open_source(str(tmp_path), label_column="kind").fingerprint() != first
    assert open_source(str(write(tmp_path / "a.tar", usual(3, 1)))).fingerprint() != first


def test_in_a_bucket(s3_prefix: str) -> None:  # noqa: F811
    for name, first in (("a", 0), ("b", 10)):
        open_storage(s3_prefix).write_bytes(f"{name}.tar", packed(usual(10, first)))
    samples = read_all(open_source(s3_prefix))
    assert [sample.image for sample in samples] == [b"image %d" % i for i in range(20)]
