"""What becomes of each row of the source: its table, its id and its label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cwerm.errors import UserError
from cwerm.stages.ingest.rows import lots
from cwerm.stages.ingest.rows.bits import Bits
from cwerm.stages.ingest.rows.held import Rows
from cwerm.stages.ingest.rows.survey import Survey
from cwerm.stages.ingest.rows.training import Training
from cwerm.stages.ingest.settings import IngestSettings

STREAMS = {"test": 1, "validation": 2}  # of what is drawn from the split seed
TABLES = ("images", "validation_images", "test_images", "trusted_images")
NONE = -1  # instead of the place of a table


@dataclass
class ChunkRows:
    """What becomes of the rows of one part: a chunk, or a piece of one."""

    index: int  # of the part
    ids: dict[str, np.ndarray]  # by table, the id of each row, -1 where it is not in that table
    labels: np.ndarray  # int32, as the source has them
    digests: np.ndarray = field(
        default_factory=lambda: np.empty((0, 0), np.uint8)
    )  # bytes [rows, d] that tell its rows from any others
    full_scale: int = 65535  # the largest value of images of more than 8 bits

    def contents(self, table: str) -> str:
        """A digest of what the part of a table must hold."""
        ids = self.ids[table]
        kept = ids >= 0
        columns = [ids, self.digests]
        digest = hashlib.sha256(f"{table} {self.full_scale}".encode())
        for column in columns:
            digest.update(column[kept].tobytes())
        return digest.hexdigest()


class AssignedRows(NamedTuple):
    """Rows of neighbouring chunks, [n] each."""

    chunks: range
    rows: Rows
    codes: np.ndarray
    """int32, -1 where a row is not readable."""
    tables: np.ndarray
    """int8, the place among `TABLES`, -1 for a row that is in none."""


@dataclass(frozen=True)
class Assignment:
    """The class of each label, and what was drawn of the training rows, a bit each."""

    survey: Survey
    code_of: np.ndarray
    """int32, by the number of the label."""
    taken: Bits
    """Rows that are no training images: drawn, or left out."""
    drawn: dict[str, Bits]
    """By table, where they went."""

    def marks(self, start: int, stop: int) -> list[np.ndarray]:
        """Of these rows, which are taken, and which are in each drawn table."""
        return [bits.between(start, stop) for bits in (self.taken, *self.drawn.values())]

    def blocks(self) -> Iterator[AssignedRows]:
        """All rows, some at a time, in the order of the source."""
        survey = self.survey
        of_chunk = np.array([TABLES.index(table) for table, _, _ in survey.items], np.int8)
        ends = survey.rows.ends
        for chunks, rows in survey.rows.every():
            start, stop = int(ends[chunks.start]), int(ends[chunks.stop])
            sizes = np.diff(ends[chunks.start : chunks.stop + 1])
            own = np.repeat(of_chunk[chunks.start : chunks.stop], sizes)
            tables = tables_of(own, rows.label, self.marks(start, stop), [*self.drawn])
            yield AssignedRows(chunks, rows, codes_of(self.code_of, rows.label), tables)


def codes_of(code_of: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The class of each row by the number of its label, int32 [n]; -1 for one that is not readable."""
    return np.where(label >= 0, code_of[label], -1).astype(np.int32)


def tables_of(
    own: np.ndarray | int, label: np.ndarray, marks: Sequence[np.ndarray], drawn: Sequence[str]
) -> np.ndarray:
    """The place of each row's table among `TABLES`, int8 [n], -1 for none.

    Args:
        own: the place of the table that its chunk is for.
        label: -1 for a row that is not readable.
        marks: as of `Assignment.marks`.
        drawn: the drawn tables.
    """
    found = np.where(label >= 0, own, NONE).astype(np.int8)
    found[marks[0]] = NONE
    for name, mask in zip(drawn, marks[1:], strict=True):
        found[mask] = TABLES.index(name)
    return found


def assign_rows(
    settings: IngestSettings, names: list[str], survey: Survey, code_of: np.ndarray
) -> Assignment:
    """What is drawn of the training rows for test and validation, and what is left out.

    What is drawn is drawn from the training rows of all chunks together, so that it does not depend on
    the chunks. Validation images are drawn last, of what is left to train on: they are as many of each
    class, and as few in all, as ``limit`` and ``imbalance`` leave there.

    Raises:
        UserError: too few images of a class for a drawn split, the limit or the tail.
    """
    given = {table for table, _, _ in survey.items}
    sizes = survey.class_sizes(code_of, len(names))
    training = Training(survey.rows, survey.training_rows, code_of, sizes)
    drawn: dict[str, Bits] = {}
    if "test_images" not in given and settings.test_fraction:
        drawn["test_images"] = _draw(settings, "test", names, training)
    training.thin_out(settings, names)
    if "validation_images" not in given and settings.validation_fraction:
        drawn["validation_images"] = _draw(settings, "validation", names, training)
    return Assignment(survey, code_of, training.taken, drawn)


def _draw(settings: IngestSettings, split: str, names: list[str], training: Training) -> Bits:
    """Rows of a split drawn from the training rows: the same share of each class, at least one.

    Drawn by what is seen in the images, so that a corrected label or a new image moves hardly any other,
    and copies of an image stay together, whatever their labels: of a class of nothing else some are drawn.
    """
    stream, share = STREAMS[split], getattr(settings, f"{split}_fraction")
    sizes = training.sizes
    counts = np.maximum(1, np.rint(share * sizes).astype(np.int64))
    counts[sizes == 0] = 0
    if (too_few := (counts >= sizes) & (sizes > 0)).any():
        few = int(np.argmax(too_few))
        raise UserError(
            f"data.{split}_fraction: class '{names[few]}' has {sizes[few]} readable "
            f"image(s), too few to draw a {split} split from; add images, or give data.{split}"
        )
    draw = np.random.default_rng([settings.split_seed, stream])
    return lots.draw(training, counts, int(draw.integers(2**64, dtype=np.uint64)) | 1, split)
