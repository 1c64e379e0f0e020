"""Sources made of files below a local or ``s3://`` root."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from cwerm.data.listing import File, Listing
from cwerm.data.source import Source

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
            line = f"{file.path}\0{file.size}\0{file.modified}\0{file.problem}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()
