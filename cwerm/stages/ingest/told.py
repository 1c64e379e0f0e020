"""What ingest understood of its sources, in lines for a person to check."""

from __future__ import annotations

import numpy as np

from cwerm.data.images import FULL_SCALES
from cwerm.data.source import Source
from cwerm.stages.ingest.rows.tally import Tally
from cwerm.stages.ingest.settings import IngestSettings
from cwerm.stages.ingest.sources import WorkItem

FEW = 8  # classes, which are told one by one
_TABLES = {
    "images": "train",
    "validation_images": "validation",
    "test_images": "test",
    "trusted_images": "trusted",
}


def understood(
    settings: IngestSettings,
    sources: dict[str, Source],
    items: list[WorkItem],
    names: list[str],
    counts: np.ndarray,
    largest: Tally,
) -> list[str]:
    """Classes with counts, where each split is from, what was left out, and how many bits were read.

    Args:
        settings: of ingest.
        sources: by their key in ``data``.
        items: what is read of them.
        names: of the classes.
        counts: training images of each class, int64 [classes].
        largest: the largest values of images of more than 8 bits.
    """
    lines = [_classes(names, counts)]
    lines.append("; ".join(_origins(settings, sources, items)))
    for role, source in sources.items():
        of_role = "" if role == "source" else f"data.{role}: "
        lines += [f"{of_role}{remark}" for remark in source.remarks()]
    return lines + _bits(largest)


def _classes(names: list[str], counts: np.ndarray) -> str:
    if len(names) <= FEW:
        return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    some = f"({', '.join(names[:3])}, ..., {names[-1]})"
    if counts.min() == counts.max():
        return f"{len(names):,} classes of {counts[0]:,} images each {some}"
    least, most = (f"{counts[i]:,} ({names[i]})" for i in (counts.argmin(), counts.argmax()))
    return f"{len(names):,} classes of {least} to {most} images"


def _origins(
    settings: IngestSettings, sources: dict[str, Source], items: list[WorkItem]
) -> list[str]:
    """Where each table is from, and which splits of the source are not used."""
    used = {table: (role, chunk.split) for table, role, chunk in items}
    texts = []
    for table, name in _TABLES.items():
        if table in used:
            role, split = used[table]
            of_role = "" if role == "source" else f" of data.{role}"
            texts.append(f"{name}: {sources[role].origin(split)}{of_role}")
        elif share := {
            "test_images": settings.test_fraction,
            "validation_images": settings.validation_fraction,
        }.get(table):
            texts.append(f"{name}: drawn, {100 * share:g} % of each class")
    for split in ("val", "test"):
        chunks = sources["source"].chunks(split, settings.rows_per_part)
        if chunks and ("source", split) not in used.values():
            rows = sum(chunk.size for chunk in chunks)
            texts.append(f"not used: {sources['source'].origin(split)}, {rows:,} images")
    return texts


def full_scale(largest: Tally) -> int:
    """The largest value that images of more than 8 bits can have, by those that occur."""
    if not largest.total:
        return FULL_SCALES[-1]
    return next(scale for scale in FULL_SCALES if scale >= largest.largest)


def _bits(largest: Tally) -> list[str]:
    if not largest.total:
        return []
    scale = full_scale(largest)
    bits = scale.bit_length()
    if scale < FULL_SCALES[-1]:
        return [
            f"{largest.total:,} image(s) of 16 bits hold values up to {largest.largest:,}: read as "
            f"{bits} bits, 0..{scale:,}"
        ]
    narrow = largest.up_to(FULL_SCALES[-2])
    if 2 * narrow.total < largest.total:
        return []
    return [
        f"{narrow.total:,} of {largest.total:,} images of 16 bits hold values up to {narrow.largest:,} "
        f"alone, others up to {largest.largest:,}: all are read as 16 bits, and those are dark; scale "
        "them where they are of fewer bits"
    ]
