"""The chunks of the sources that ingest reads, each with the table that its images are for."""

from __future__ import annotations

from cwerm.data.source import Chunk
from cwerm.errors import UserError
from cwerm.stages.outside import Outside

WorkItem = tuple[str, str, Chunk]  # table, role, chunk


def plan_chunks(outside: Outside, rows_per_part: int) -> list[WorkItem]:
    """All chunks to read, in order, each with the table that its images are for.

    Raises:
        UserError: a source has no split that could be what it is named for.
    """
    sources, rows = outside.sources, rows_per_part
    source = sources["source"]
    items = [("images", "source", chunk) for chunk in source.chunks("train", rows)]
    if not items:
        found = [source.origin(split) for split in ("val", "test") if source.chunks(split, rows)]
        raise UserError(
            f"data.source: '{outside.addresses['source']}' has no training images"
            + (f", only {' and '.join(found)}; rename that" if found else "; check the path")
        )
    if "test" in sources:
        items += _first(outside, "test", ("test", "train"), rows)
    else:
        items += [("test_images", "source", chunk) for chunk in source.chunks("test", rows)]
    if "trusted" in sources:
        items += _first(outside, "trusted", ("train", "test"), rows)
    return items


def _first(outside: Outside, role: str, splits: tuple[str, ...], rows: int) -> list[WorkItem]:
    """The first of the splits that the source of the role has."""
    for split in splits:
        if chunks := outside.sources[role].chunks(split, rows):
            return [(f"{role}_images", role, chunk) for chunk in chunks]
    raise UserError(f"data.{role}: '{outside.addresses[role]}' holds no images; check the path")
