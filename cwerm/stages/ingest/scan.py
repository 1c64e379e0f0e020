"""The first pass of ingest: which images are readable, and of what class they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from cwerm.data.images import read
from cwerm.data.source import Chunk, Sample, Source, runs
from cwerm.errors import UserError
from cwerm.stages.ingest.known import Recorded, ScanWork
from cwerm.stages.ingest.sources import WorkItem
from cwerm.stages.outside import naming

LARGEST_IMAGE = 2**31 - 1  # bytes, which a cell of a part can hold


@dataclass
class Scan:
    """What the first pass learns of one chunk."""

    readable: np.ndarray  # bool [rows]
    labels: list[str | int]  # that occur
    label_of: np.ndarray  # int32 [rows], which of them each row has
    rejects: list[tuple[str, str]]  # path, reason
    digests: np.ndarray  # bytes [rows, 16], of all that each row holds
    pixels: np.ndarray  # bytes [rows, 16], of its image alone
    height: np.ndarray  # int32 [rows], pixels, 0 where it is not readable
    width: np.ndarray  # likewise
    sizes: np.ndarray  # int64 [rows], bytes of each image
    largest: np.ndarray  # int32 [rows], largest value of an image of more than 8 bits, else -1
    content: np.ndarray | None = None  # bytes [rows, 16], what told each image before it was read
    known: np.ndarray | None = None  # int64 [rows], which image of earlier runs it is, -1 for none

    @property
    def deep(self) -> np.ndarray:
        """Largest values of the images of more than 8 bits."""
        return self.largest[self.largest >= 0]

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Height and width of the readable images."""
        return self.height[self.readable], self.width[self.readable]


def scanner(sources: dict[str, Source]) -> Callable[[ScanWork], Scan]:
    """What scans a chunk of which something may be known."""
    scan = Scanner(sources)

    def of(work: ScanWork) -> Scan:
        item, content, recorded = work
        known = recorded.rows if recorded else None
        return replace(scan(item, recorded), content=content, known=known)

    return of


class Scanner:
    """Decodes the images of a chunk, but for those that an earlier run has decoded."""

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def __call__(self, item: WorkItem, recorded: Recorded | None = None) -> Scan:
        """What is to be learned of the chunk's images; what is recorded of one counts."""
        _, role, chunk = item
        if recorded:
            chunk = replace(chunk, known=recorded.known)
        label_of, digests, pixels = [], [], []
        rejects, sizes = [], []
        labels: dict[str | int, int] = {}
        readable = np.zeros(chunk.size, dtype=bool)
        height, width = np.zeros((2, chunk.size), dtype=np.int32)
        largest = np.full(chunk.size, -1, dtype=np.int32)
        for row, sample in enumerate(self._samples(role, chunk)):
            if row == chunk.size:
                raise _changed(sample.path)
            label_of.append(labels.setdefault(sample.label, len(labels)))
            if recorded and recorded.rows[row] >= 0:
                pixels.append(recorded.pixels[row].tobytes())
                digests.append(_digest_with(sample, pixels[-1]))
                sizes.append(int(recorded.bytes[row]))
                height[row], width[row] = recorded.height[row], recorded.width[row]
                readable[row] = True
                continue
            pixels.append(digest_of_image(sample.image))
            digests.append(_digest_with(sample, pixels[-1]))
            sizes.append(image_bytes(sample))
            try:
                if sample.problem:
                    raise ValueError(sample.problem)
                if sizes[-1] > LARGEST_IMAGE:
                    raise ValueError(f"larger than {LARGEST_IMAGE:,} bytes")
                picture = read(sample.image)
                width[row], height[row] = picture.to_rgb().size
            except ValueError as error:
                rejects.append((name_of(sample), str(error)))
                continue
            except OSError as error:
                raise UserError(
                    f"data.{role}: '{name_of(sample)}' can't be decoded here ({error.strerror}); fix that, "
                    "and run again"
                ) from error
            readable[row] = True
            if picture.largest is not None:
                largest[row] = picture.largest
        if len(label_of) < chunk.size:
            raise _changed(chunk.files[-1] if chunk.files else "a file")
        return Scan(
            readable,
            list(labels),
            np.array(label_of, dtype=np.int32),
            rejects,
            as_rows(digests),
            as_rows(pixels),
            height,
            width,
            np.array(sizes, dtype=np.int64),
            largest,
        )

    def _samples(self, role: str, chunk: Chunk) -> Iterator[Sample]:
        with naming(role):
            yield from self.sources[role].read(chunk)


def digest_of(sample: Sample) -> bytes:
    """16 bytes that tell this sample from any other."""
    return _digest_with(sample, digest_of_image(sample.image))


def _digest_with(sample: Sample, image: bytes) -> bytes:
    named = repr((sample.path, sample.label)).encode()
    return hashlib.sha256(named + image).digest()[:16]


def digest_of_image(image: bytes | np.ndarray) -> bytes:
    """16 bytes that tell this image from any other, whatever its label and place."""
    kind = b""
    if isinstance(image, np.ndarray):
        kind, image = f"{image.dtype}{image.shape}".encode(), image.tobytes()
    return hashlib.sha256(kind + image).digest()[:16]


def as_rows(digests: list[bytes]) -> np.ndarray:
    """Digests as bytes [n, 16]."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def image_bytes(sample: Sample) -> int:
    """What the sample's image takes in memory, as it lies in the source."""
    image = sample.image
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def name_of(sample: Sample) -> str:
    """A reject's name: also where it lies, as many samples may have one path."""
    if not sample.place or sample.place == sample.path:
        return sample.path
    return f"{sample.place} ({sample.path})"


def parts_of(chunk: Chunk, sizes: np.ndarray) -> list[int]:
    """Rows of each part that the chunk becomes: as planned, and cut where the images are too large."""
    cuts = np.cumsum(chunk.parts or (chunk.size,))[:-1]
    return [length for part in np.split(sizes, cuts) for length in runs(part)]


def check_same(samples: list[Sample], digests: np.ndarray) -> None:
    """Raise `UserError` where samples, read again, are not those of the scan."""
    again = as_rows([digest_of(sample) for sample in samples])
    common = min(len(again), len(digests))
    changed = np.flatnonzero((again[:common] != digests[:common]).any(axis=1))
    if len(again) == len(digests) and not len(changed):
        return
    first = (
        samples[changed[0] if len(changed) else max(0, common - 1)].path if samples else "a file"
    )
    raise _changed(first)


def _changed(path: str) -> UserError:
    return UserError(
        f"data.source: '{path}' changed while it was read; let nothing write there, and run again"
    )


def check_rejects(limit: float, rejects: int, total: int, first: tuple[str, str]) -> None:
    """Raise `UserError` where more images are unreadable than ``data.max_rejects`` allows."""
    allowed = limit * total if limit < 1 else limit
    if rejects > allowed:
        path, reason = first
        raise UserError(
            f"data.max_rejects: {rejects} of {total} images are unreadable, {limit} allowed "
            f"(first: {path}: {reason}); repair or remove them, or raise the limit"
        )
