"""What becomes of each row of the source: its table, its id and its label, a pure function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from cwerm.algorithms.coreset import draw_balanced
from cwerm.algorithms.noise.corrupt import long_tail
from cwerm.errors import UserError, blame
from cwerm.stages.ingest.settings import IngestSettings

STREAMS = {"test": 1, "validation": 2}  # of what is drawn from the split seed


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
        UserError: too few images of a class for a drawn split, the limit or the tail.
    """
    train_chunks = [i for i, table in enumerate(tables) if table == "images"]
    train = np.concatenate([codes[i] for i in train_chunks])
    images = np.concatenate([pixels[i] for i in train_chunks])
    table_of = _tables_of_training_rows(settings, names, train, images, {*tables})
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
    settings: IngestSettings,
    names: list[str],
    labels: np.ndarray,
    pixels: np.ndarray,
    given: set[str],
) -> np.ndarray:
    """``images``, ``test_images``, ``validation_images`` or, where a row is left out, nothing.

    Validation images are drawn last, of what is left to train on: they are as many of each class, and as
    few in all, as ``limit`` and ``imbalance`` leave there.
    """
    table_of = np.where(labels >= 0, "images", "").astype(object)  # text of any length
    if "test_images" not in given and settings.test_fraction:
        table_of[_drawn(settings, "test", names, table_of, labels, pixels)] = "test_images"
    rows = np.flatnonzero(table_of == "images")
    kept = rows
    if settings.limit is not None and settings.limit < len(kept):
        with blame("data.limit", names):
            kept = kept[draw_balanced(labels[kept], settings.limit, settings.split_seed)]
    if settings.imbalance is not None:
        with blame("data.imbalance", names):
            kept = kept[long_tail(labels[kept], settings.imbalance, settings.split_seed)]
    table_of[np.setdiff1d(rows, kept)] = ""
    if "validation_images" not in given and settings.validation_fraction:
        drawn = _drawn(settings, "validation", names, table_of, labels, pixels)
        table_of[drawn] = "validation_images"
    return table_of


def _drawn(
    settings: IngestSettings,
    split: str,
    names: list[str],
    table_of: np.ndarray,
    labels: np.ndarray,
    pixels: np.ndarray,
) -> np.ndarray:
    """Positions of a split drawn from the training rows: the same share of each class, at least one.

    Drawn by what is seen in the images, so that a corrected label or a new image moves hardly any other,
    and copies of an image stay together, whatever their labels: of a class of nothing else some are drawn.
    """
    stream, share = STREAMS[split], getattr(settings, f"{split}_fraction")
    odd = np.random.default_rng([settings.split_seed, stream]).integers(2**64, dtype=np.uint64) | 1
    lots = pixels[:, :8].copy().view(np.uint64)[:, 0] * odd  # modulo 2^64
    train = np.flatnonzero(table_of == "images")
    order = train[np.lexsort((lots[train], labels[train]))]
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    counts = np.maximum(1, np.rint(share * sizes).astype(np.int64))
    if (counts >= sizes).any():
        few = int(np.argmax(counts >= sizes))
        raise UserError(
            f"data.{split}_fraction: class '{names[labels[order[first[few]]]]}' has {sizes[few]} readable "
            f"image(s), too few to draw a {split} split from; add images, or give data.{split}"
        )
    place = np.arange(len(order)) - np.repeat(first, sizes)  # within the class
    chosen = place < np.repeat(counts, sizes)
    copies = chosen | np.isin(lots[order], lots[order[chosen]])
    is_left = np.add.reduceat(~copies, first) > 0
    return order[np.where(np.repeat(is_left, sizes), copies, chosen)]
