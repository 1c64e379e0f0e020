"""What becomes of each row of the source: its table, its id and its label, a pure function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from cwerm.algorithms.coreset import draw_balanced
from cwerm.algorithms.noise.corrupt import long_tail
from cwerm.errors import UserError, blame
from cwerm.stages.ingest.settings import IngestSettings


@dataclass
class ChunkRows:
    """What becomes of the rows of one part: a chunk, or a piece of one."""

    index: int  # of the part
    ids: dict[str, np.ndarray]  # by table, the id of each row, -1 where it is not in that table
    labels: np.ndarray  # int32, as the source has them
    digests: np.ndarray = field(
        default_factory=lambda: np.empty((0, 0), np.uint8)
    )  # bytes [rows, d] that tell its rows from any others
    pixels: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint8))  # their images
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


def assign_rows(
    settings: IngestSettings,
    names: list[str],
    tables: list[str],
    codes: list[np.ndarray],
    pixels: list[np.ndarray],
) -> list[ChunkRows]:
    """Table, id and labels of all rows, from each chunk's table, and its rows' class codes and digests.

    Ids are contiguous from 0 in each table, in the order of the source. What is drawn is drawn from
    the training rows of all chunks together, so that it does not depend on the chunks.

    Raises:
        UserError: too few images of a class for the test split, the limit or the tail.
    """
    train_chunks = [i for i, table in enumerate(tables) if table == "images"]
    train = np.concatenate([codes[i] for i in train_chunks])
    drawn = None
    if "test_images" not in tables and settings.test_fraction:
        images = np.concatenate([pixels[i] for i in train_chunks])
        drawn = _drawn_test(settings, names, train, images)
    table_of = _tables_of_training_rows(settings, names, train, drawn)
    ends = np.cumsum([len(codes[i]) for i in train_chunks])[:-1]
    tables_in = dict(zip(train_chunks, np.split(table_of, ends), strict=True))

    next_id: dict[str, int] = {}
    rows = []
    for index, (table, true) in enumerate(zip(tables, codes, strict=True)):
        table_of = tables_in.get(index, np.where(true >= 0, table, ""))
        ids = {}
        for name in sorted(set(table_of.tolist()) - {""}):
            mask = table_of == name
            start = next_id.get(name, 0)
            ids[name] = np.where(mask, start + np.cumsum(mask) - 1, -1)
            next_id[name] = start + int(mask.sum())
        rows.append(ChunkRows(index, ids, true))
    return rows


def _tables_of_training_rows(
    settings: IngestSettings, names: list[str], labels: np.ndarray, drawn: np.ndarray | None
) -> np.ndarray:
    """``images``, ``test_images`` or, where a row is left out, nothing."""
    table_of = np.where(labels >= 0, "images", "").astype(object)  # text of any length
    if drawn is not None:
        table_of[drawn] = "test_images"
    rows = np.flatnonzero(table_of == "images")
    kept = rows
    if settings.limit is not None and settings.limit < len(kept):
        with blame("data.limit", names):
            kept = kept[draw_balanced(labels[kept], settings.limit, settings.split_seed)]
    if settings.imbalance is not None:
        with blame("data.imbalance", names):
            kept = kept[long_tail(labels[kept], settings.imbalance, settings.split_seed)]
    table_of[np.setdiff1d(rows, kept)] = ""
    return table_of


def _drawn_test(
    settings: IngestSettings, names: list[str], labels: np.ndarray, pixels: np.ndarray
) -> np.ndarray:
    """Positions of the test split: the same share of each class, at least one.

    Drawn by what is seen in the images, so that a corrected label or a new image moves hardly any other,
    and copies of an image stay together.
    """
    odd = np.random.default_rng([settings.split_seed, 1]).integers(2**64, dtype=np.uint64) | 1
    lots = pixels[:, :8].copy().view(np.uint64)[:, 0] * odd  # modulo 2^64
    drawn = []
    order = np.lexsort((lots, labels))
    order = order[np.count_nonzero(labels < 0) :]
    classes, first = np.unique(labels[order], return_index=True)
    for label, rows in zip(classes, np.split(order, first[1:]), strict=True):
        count = max(1, round(settings.test_fraction * len(rows)))
        if count >= len(rows):
            raise UserError(
                f"data.test_fraction: class '{names[label]}' has {len(rows)} readable image(s), too few "
                "to draw a test split from; add images, or give data.test"
            )
        drawn.append(rows[:count])
    return np.concatenate(drawn)
