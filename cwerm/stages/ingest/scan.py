"""The first pass of ingest: which images are readable, and of what class they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cwerm.data.images import read
from cwerm.data.source import Chunk, Sample, Source, runs
from cwerm.errors import UserError
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
    short_sides: np.ndarray  # of readable rows, pixels
    shapes: set[tuple[int, int]]  # (height, width) that occur; two are enough to know they differ
    sizes: np.ndarray  # int64 [rows], bytes of each image
    largest: np.ndarray  # int64, largest values of readable images of more than 8 bits


class Scanner:
    """Decodes the images of a chunk."""

    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def __call__(self, item: WorkItem) -> Scan:
        _, role, chunk = item
        readable, label_of, digests, pixels = [], [], [], []
        rejects, sides, sizes = [], [], []
        labels: dict[str | int, int] = {}
        shapes: set[tuple[int, int]] = set()
        largest: list[int] = []
        for sample in self._samples(role, chunk):
            label_of.append(labels.setdefault(sample.label, len(labels)))
            digests.append(digest_of(sample))
            pixels.append(digest_of_image(sample.image))
            sizes.append(image_bytes(sample))
            try:
                if sample.problem:
                    raise ValueError(sample.problem)
                if sizes[-1] > LARGEST_IMAGE:
                    raise ValueError(f"larger than {LARGEST_IMAGE:,} bytes")
                picture = read(sample.image)
                width, height = picture.to_rgb().size
            except ValueError as error:
                rejects.append((name_of(sample), str(error)))
                readable.append(False)
                continue
            except OSError as error:
                raise UserError(
                    f"data.{role}: '{name_of(sample)}' can't be decoded here ({error.strerror}); fix that, "
                    "and run again"
                ) from error
            readable.append(True)
            sides.append(min(width, height))
            if picture.largest is not None:
                largest.append(picture.largest)
            if len(shapes) < 2:
                shapes.add((height, width))
        short_sides = np.array(sides, dtype=np.int32)
        return Scan(
            np.array(readable, dtype=bool),
            list(labels),
            np.array(label_of, dtype=np.int32),
            rejects,
            as_rows(digests),
            as_rows(pixels),
            short_sides,
            shapes,
            np.array(sizes, dtype=np.int64),
            np.array(largest, dtype=np.int64),
        )

    def _samples(self, role: str, chunk: Chunk) -> Iterator[Sample]:
        with naming(role):
            yield from self.sources[role].read(chunk)


def digest_of(sample: Sample) -> bytes:
    """16 bytes that tell this sample from any other."""
    named = repr((sample.path, sample.label)).encode()
    return hashlib.sha256(named + digest_of_image(sample.image)).digest()[:16]


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
    raise UserError(
        f"data.source: '{first}' changed while it was read; let nothing write there, and run again"
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
