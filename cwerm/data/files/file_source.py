"""Sources made of files below a local or ``s3://`` root."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cwerm.data.files.digests import THREADS, changed, digests
from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import gone
from cwerm.data.source import Source
from cwerm.errors import UserError, shown
from cwerm.store.storage import open_storage

FEW = 100  # objects, which are asked for one by one; of more the whole folder is listed

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


def held_out_split(splits: Iterable[str]) -> dict[str, str]:
    """Rename ``val`` to ``test`` where that is the only held-out split; other names stay."""
    names = set(splits)
    return {name: "test" if name == "val" and "test" not in names else name for name in names}


def same_kind_of_names(named: Mapping[str, str | None], uri: str) -> dict[str, str]:
    """The split of each file of ``uri`` by the split that its name tells; all train where none tells one.

    Raises:
        UserError: some names tell a split, and others do not.
    """
    if len(named) == 1 or not any(named.values()):
        return dict.fromkeys(named, "train")
    unnamed = next((path for path, split in named.items() if split is None), None)
    if unnamed is not None:
        raise UserError(
            f"data.source: other files below '{uri}' are named train, test or val, "
            f"but not '{shown(unnamed)}'; rename it or move it away"
        )
    splits = {path: split for path, split in named.items() if split}
    renamed = held_out_split(splits.values())
    return {path: renamed[split] for path, split in splits.items()}


class FileSource(Source):
    """A source whose content is a set of files, identified by their paths and what is in them."""

    def __init__(self, listing: Listing, files: tuple[FoundFile, ...]) -> None:
        self.uri, self.s3 = listing.uri, listing.s3
        self._files: tuple[FoundFile, ...] | None = files
        self._seen: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, object]:
        # a million paths have no business in a task
        return {**self.__dict__, "_files": None, "_seen": {}}

    @property
    def files(self) -> tuple[FoundFile, ...]:
        """The files that make up the data, sorted by path."""
        assert self._files is not None, "a pickled copy of a source only reads"
        return self._files

    def fingerprint(self) -> str:
        """A hash of every file's relative path and content, of objects in a bucket their ETag.

        Raises:
            UserError: a file can't be read, or is gone.
        """
        paths = [file.path for file in self.files if not file.problem]
        if self._in_bucket:
            tags: dict[str, str] = self._tags(paths)
            self._seen = tags
        else:
            self._seen = digests(self.uri, paths)
            tags = {path: digest for path, (digest, _) in self._seen.items()}
        digest = hashlib.sha256(type(self).__name__.encode())
        for file in self.files:
            line = f"{file.path}\0{file.problem or tags[file.path]}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Compare the files with what `fingerprint` saw.

        Raises:
            UserError: one has another content, or is gone.
        """
        if self._in_bucket:
            now = self._tags([*self._seen])
            path = next((path for path, tag in self._seen.items() if now[path] != tag), None)
        else:
            path = changed(self.uri, self._seen)
        if path is not None:
            raise UserError(
                f"data.source: '{self.uri}/{shown(path)}' changed while it was read; let nothing "
                "write there, and run again"
            )

    def content_of(self, path: str) -> str:
        """What tells the content of a file from any other, as `fingerprint` saw it."""
        seen = self._seen[path]
        return f"{self.uri}/{path} {seen}" if self._in_bucket else f"sha256 {seen[0]}"

    @property
    def _in_bucket(self) -> bool:
        return urlsplit(self.uri).scheme == "s3"

    def _tags(self, paths: list[str]) -> dict[str, str]:
        """The ETag and the size of objects, by path."""
        storage = open_storage(self.uri, self.s3)
        if len(paths) <= FEW:
            with ThreadPoolExecutor(THREADS) as pool:
                entries = [entry for entry in pool.map(storage.stat, paths) if entry]
        else:
            entries = [*storage.walk("")]
        tags = {entry.path: f"{entry.tag} {entry.size}" for entry in entries}
        for path in paths:
            if path not in tags:
                raise UserError(gone(f"{self.uri}/{shown(path)}"))
        return tags
