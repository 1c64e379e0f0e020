"""The samples of one tar shard, as WebDataset lays them out.

Members that follow each other and are called alike up to the first dot are one sample: ``17.jpg`` and
``17.cls``. Its label is in ``.cls`` (a number), in ``.txt`` or a member named like the job's label column, or
in ``.json`` under that name.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO, NamedTuple

from cwerm.data.labels import Label
from cwerm.data.names import IMAGES, suffix
from cwerm.errors import shown

MOST_BYTES = 2**20  # of a member that holds a label
BLOCK = 512  # bytes, of which an archive is made; empty ones end it
MAGIC, MAGIC_AT = b"ustar", 257


class Found(NamedTuple):
    """One sample."""

    name: str
    """Of its image, or where it has none its first member."""
    image: bytes
    """Empty where images are not read."""
    label: Label
    size: int
    """Bytes of the image."""
    problem: str
    """Why there is no image; "" where there is one."""


def samples(stream: BinaryIO, column: str, *, images: bool) -> Iterator[Found]:
    """The samples of a shard, in order, with their images or without.

    Raises:
        ValueError: it is no tar, or is cut short, or a sample has no label or two of something.
    """
    _check_end(stream)
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for key, group in groupby(_files(tar), lambda member: _split(member.name)[0]):
                if key in seen:
                    raise ValueError(f"has two samples '{shown(key)}', apart from each other")
                seen.add(key)
                members = {_split(member.name)[1]: member for member in group}
                yield _sample(tar, key, members, column, images)
    except tarfile.ReadError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"is no tar archive, or is damaged ({reason}); pack it again") from None


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        vars(tar)["members"].clear()  # else it keeps all that it has seen
        hidden = member.name.rpartition("/")[2].startswith(("._", "__"))
        if member.isdir() or hidden:
            continue
        if not member.isreg():
            raise ValueError(f"holds '{shown(member.name)}', which is no plain file; pack it again")
        yield member


def _split(name: str) -> tuple[str, str]:
    """The sample's key, with its folder, and the rest, in lower case."""
    folder, slash, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return f"{folder}{slash}{key}", rest.lower()


def _check_end(stream: BinaryIO) -> None:
    """Raise `ValueError` for a stream that begins as an archive and does not end as one."""
    begin = stream.read(MAGIC_AT + len(MAGIC))
    size = stream.seek(0, 2)
    stream.seek(max(0, size - BLOCK))
    if begin[MAGIC_AT:] == MAGIC and (size % BLOCK or stream.read(BLOCK).strip(b"\0")):
        raise ValueError("is cut short; fetch it again")
    stream.seek(0)


def _sample(
    tar: tarfile.TarFile,
    key: str,
    members: dict[str, tarfile.TarInfo],
    column: str,
    images: bool,
) -> Found:
    pictures = [rest for rest in members if suffix(f"x.{rest}") in IMAGES]
    if len(pictures) > 1:
        raise ValueError(f"has two images of sample '{shown(key)}'; keep one of them")
    label = _label(tar, key, members, column)
    if not pictures:
        first = next(iter(members.values()))
        return Found(shown(first.name), b"", label, 0, "no image in its sample")
    member = members[pictures[0]]
    image = _read(tar, member) if images else b""
    return Found(shown(member.name), image, label, member.size, "")


def _label(
    tar: tarfile.TarFile, key: str, members: dict[str, tarfile.TarInfo], column: str
) -> Label:
    for rest in (column.lower(), "cls", "txt"):
        if rest in members:
            text = _text(tar, members[rest]).strip()
            if not text:
                raise ValueError(f"has an empty label in '{shown(members[rest].name)}'")
            is_number = rest == "cls" and text.lstrip("-").isdecimal()
            return int(text) if is_number else shown(text)
    if "json" in members:
        name = shown(members["json"].name)
        try:
            value = json.loads(_text(tar, members["json"]))[column]
        except (ValueError, TypeError, KeyError, IndexError):
            raise ValueError(f"has no '{column}' in '{name}'; set data.label_column") from None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"has a label in '{name}' that is neither text nor a whole number")
        return shown(value) if isinstance(value, str) else value
    raise ValueError(
        f"has no label of sample '{shown(key)}': no .cls, .txt, .{column} or .json beside the image; "
        "unpack an archive of class folders, and give the folder"
    )


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > MOST_BYTES:
        raise ValueError(f"holds '{shown(member.name)}', which is too large for a label")
    try:
        return _read(tar, member).decode()
    except UnicodeDecodeError:
        raise ValueError(f"holds '{shown(member.name)}', which is no text in UTF-8") from None


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file, "only plain files are read"
    return file.read()
