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
    source, content = sources["source"], outside.fingerprints
    items = [("images", "source", chunk) for chunk in source.chunks("train", rows)]
    if not items:
        found = [source.origin(split) for split in ("val", "test") if source.chunks(split, rows)]
        raise UserError(
            f"data.source: '{outside.addresses['source']}' has no training images"
            + (f", only {' and '.join(found)}; rename that" if found else "; check the path")
        )
    # first: a source's only held-out split is its test split, unless it is asked for here
    if "validation" in sources:
        items += _first(outside, "validation", ("val", "test", "train"), rows)
    else:
        items += [("validation_images", "source", chunk) for chunk in source.chunks("val", rows)]
    if "test" in sources:
        items += _first(outside, "test", ("test", "train"), rows)
    elif content.get("validation") != content["source"] or items[-1][2].split != "test":
        items += [("test_images", "source", chunk) for chunk in source.chunks("test", rows)]
    if "trusted" in sources:
        items += _first(outside, "trusted", ("train", "test"), rows)
    _check_apart(outside, items)
    return items


def _check_apart(outside: Outside, items: list[WorkItem]) -> None:
    """Raise `UserError` where the validation images are those that are trained on or tested."""
    content = outside.fingerprints
    seen = {(content[role], chunk.split): table for table, role, chunk in items}
    for table, role, chunk in items:
        both = {table, seen[content[role], chunk.split]}
        if len(both) > 1 and "validation_images" in both:
            (other,) = both - {"validation_images"}
            word = {"images": "training", "test_images": "test"}.get(other, "trusted")
            raise UserError(
                f"data.validation: '{outside.addresses['validation']}' holds the {word} images; give others, "
                "or have some of the training images drawn by data.validation_fraction"
            )


def _first(outside: Outside, role: str, splits: tuple[str, ...], rows: int) -> list[WorkItem]:
    """The first of the splits that the source of the role has."""
    for split in splits:
        if chunks := outside.sources[role].chunks(split, rows):
            return [(f"{role}_images", role, chunk) for chunk in chunks]
    raise UserError(f"data.{role}: '{outside.addresses[role]}' holds no images; check the path")
