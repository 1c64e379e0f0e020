"""Sources made of files below a local or ``s3://`` root."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyarrow import fs

from cwerm.data.source import Source
from cwerm.errors import UserError
from cwerm.sections import S3
from cwerm.storage import filesystem, local_path

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("eval", "evaluation"), "val"),
}
"""Words that name a split, in lower case."""
_NO_NAMES = frozenset(
    ("set", "sets", "split", "data", "dataset", "image", "images", "img", "imgs", "photos", "of")
) | {"pictures", "samples", "files", "folder", "dir", "part", "shard"}
_ENDS = ("dataset", "images", "data", "imgs", "set")  # written in one word too, as in testset


@dataclass(frozen=True)
class SplitName:
    """A split as a name tells it, with the name's words that say something else (``flowers-train``)."""

    split: str
    others: tuple[str, ...] = ()


def split_in_name(name: str) -> SplitName | None:
    """The split that the name of a folder, or of a file without its suffix, tells; None for none.

    Whole words count, in any case, as ``Training``, ``val_set``, ``testImages``, ``train2017``,
    ``flowers-train`` or ``train-00000-of-00001`` have them; ``trainer`` and ``contest`` have none.

    Raises:
        ValueError: the name tells two splits, such as ``train-test``.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?i)\bh[eo]ld[-_ ]out", "holdout", text).lower())
    splits, others = [], []
    for word in words:
        bare = next((word.removesuffix(end) for end in _ENDS if word.endswith(end)), word)
        split = SPLIT_NAMES.get(word) or SPLIT_NAMES.get(bare)
        if split:
            splits.append(split)
        elif word not in _NO_NAMES:
            others.append(word)
    if len(set(splits)) > 1:
        raise ValueError(f"'{name}' names two splits, {splits[0]} and {splits[1]}")
    return SplitName(splits[0], tuple(others)) if splits else None


@dataclass(frozen=True)
class File:
    """A file by its path below the root; size in bytes, time of change in nanoseconds."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Listing:
    """All files and folders below a root, hidden ones left out, sorted by path."""

    uri: str
    files: tuple[File, ...]
    folders: tuple[str, ...]
    s3: S3 | None = None  # how it was reached


def list_files(uri: str, s3: S3 | None = None) -> Listing:
    """List everything below ``uri``; a single file is listed below its parent.

    Raises:
        UserError: nothing is there, or it can't be listed.
    """
    if urlsplit(uri).scheme in ("", "file"):
        uri = str(local_path(uri))
    uri = uri.rstrip("/")
    system, root = filesystem(uri, s3)
    try:
        found = system.get_file_info(root)
        if found.type == fs.FileType.NotFound:
            raise UserError(f"data.source: '{uri}' does not exist; check the path")
        if found.type == fs.FileType.File:
            uri, _, name = uri.rpartition("/")
            return Listing(uri, (File(name, found.size, found.mtime_ns),), (), s3)
        entries = system.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"data.source: '{uri}' can't be listed ({reason}); check the path and your permissions"
        ) from error
    files, folders = [], []
    for entry in entries:
        path = entry.path[len(root.rstrip("/")) + 1 :]
        if any(part.startswith(".") for part in path.split("/")):
            continue
        if entry.type == fs.FileType.File:
            files.append(File(path, entry.size, entry.mtime_ns))
        elif entry.type == fs.FileType.Directory:
            folders.append(path)
    by_path = sorted(files, key=lambda file: file.path)
    return Listing(uri, tuple(by_path), tuple(sorted(folders)), s3)


def held_out_split(splits: Iterable[str]) -> dict[str, str]:
    """Rename ``val`` to ``test`` where that is the only held-out split; other names stay."""
    names = set(splits)
    return {name: "test" if name == "val" and "test" not in names else name for name in names}


class FileSource(Source):
    """A source whose content is a set of files, identified by path, size and time of change."""

    def __init__(self, listing: Listing, files: tuple[File, ...]) -> None:
        self.uri, self.s3 = listing.uri, listing.s3
        self._files: tuple[File, ...] | None = files

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": None}  # a million paths have no business in a task

    @property
    def files(self) -> tuple[File, ...]:
        """The files that make up the data, sorted by path."""
        assert self._files is not None, "a pickled copy of a source only reads"
        return self._files

    def fingerprint(self) -> str:
        """A hash of every file's relative path, size and time of change."""
        digest = hashlib.sha256(type(self).__name__.encode())
        for file in self.files:
            digest.update(f"{file.path}\0{file.size}\0{file.modified}\n".encode())
        return digest.hexdigest()
