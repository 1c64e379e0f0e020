"""What every source of labelled images offers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 16 * 2**20  # of images, encoded or as arrays, that a part holds


@dataclass(frozen=True)
class Sample:
    """One labelled image as the source holds it.

    Attributes:
        image: an encoded image, or a uint8 (or uint16) array [h, w] or [h, w, c].
        label: the label in the source's own terms.
        path: names the sample for a person: a path below the source's root, or
            ``train-images[17]``.
        problem: a short reason why there is no image, known from the content or the layout of the
            source (a link to nothing, a cell without bytes); the sample is then a reject.
        place: where it lies, where the path does not say: ``train-00001.parquet[17]``.
        extra: values of the source's `Source.extra_columns`, as far as it has some.
    """

    image: bytes | np.ndarray
    label: str | int
    path: str
    problem: str = ""
    place: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A piece of a split that one worker reads.

    Attributes:
        split: ``train``, ``test`` or ``val``.
        start: the first row, within the split (arrays, folders) or within the file (Parquet).
        size: rows in the chunk.
        files: the files to read, relative to the source's root; none for arrays.
        problems: for each file, why it is not to be opened, "" for most; () where all can be.
        parts: rows of each part that it becomes, where it is read at once but makes several.
        labels: one for each file, where neither the files nor their names tell them.
        extra: values of `Source.extra_columns`, likewise.
        source: of several sources, the number of the one that it belongs to.
        known: for each file, whether what it holds is known: it is not opened, and its sample has no
            image; () where all are to be read.
    """

    split: str
    start: int
    size: int
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    labels: tuple[str | int, ...] = ()
    extra: pa.Table | None = None
    source: int = 0
    known: tuple[bool, ...] = ()


def mixed(names: Iterable[str]) -> list[int]:
    """An order of files by a digest of their names, so that a part holds images of all classes.

    Streamed training shuffles within some parts at a time. A new file moves hardly any other.
    """
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    return sorted(range(len(digests)), key=digests.__getitem__)


def runs(sizes: Sequence[int] | np.ndarray) -> list[int]:
    """Lengths of the runs of up to `PART_BYTES` in all; what is larger is a run of its own."""
    found, length, held = [], 0, 0
    for size in sizes:
        if length and held + size > PART_BYTES:
            found.append(length)
            length = held = 0
        length, held = length + 1, held + int(size)
    return [*found, length] if length else found


def pieces(sizes: Sequence[int], rows: int) -> list[slice]:
    """The rows of some images in pieces of up to ``rows`` images and `PART_BYTES`."""
    found = []
    for start in range(0, len(sizes), rows):
        for length in runs(sizes[start : start + rows]):
            found.append(slice(start, start + length))
            start += length
    return found


class Source(ABC):
    """Labelled images by split; opened and split into chunks once, read by any number of workers.

    A pickled copy is for reading: it leaves the list of files behind.
    """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the content does, and is the same in another run."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Compare what lies there now with what `fingerprint` saw.

        Raises:
            UserError: a file was changed, added or removed.
        """

    @abstractmethod
    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """The split in pieces, in a fixed order; [] without such a split.

        A piece makes a part, or parts, of up to ``rows`` rows and `PART_BYTES` of images.
        """

    @abstractmethod
    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's samples in order.

        Raises:
            UserError: a file can't be read, which says nothing about the images in it.
        """

    def contents(self, chunk: Chunk) -> list[str] | None:
        """For each of the chunk's samples what tells its image from any other, without reading it.

        "" where nothing does, None where the source knows it of no sample. Known after `fingerprint`.
        """
        del chunk
        return None

    @abstractmethod
    def class_names(self) -> list[str] | None:
        """The names of labels 0..C-1 (or of text labels, in order), where the source knows them."""

    def origin(self, split: str) -> str:
        """Where the split was found, for a person to check: a folder, or names of files."""
        return f"the source's own {split} split"

    def extra_columns(self) -> dict[str, pa.DataType]:
        """What it tells of images beside path and label: types by name, for values that are plain."""
        return {}

    def remarks(self) -> list[str]:
        """What else a person should know of how the source was understood, a line each."""
        return []
