"""Several sources as one: classes are matched by name, and paths begin with the name of their source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import pyarrow as pa

from cwerm.data.extra import told_left_out, unified
from cwerm.data.files.listing import address
from cwerm.data.source import Chunk, Sample, Source
from cwerm.errors import UserError, shown


def distinct_names(addresses: Sequence[str]) -> list[str]:
    """A short name for each: the end of its address, with as much before it as tells it from the others.

    Raises:
        UserError: two are the same.
    """
    parts = [_parts(spec) for spec in addresses]
    for number, of_one in enumerate(parts):
        if of_one in parts[:number]:
            raise UserError(
                f"data.source: '{shown(addresses[number])}' is named twice; leave one out"
            )
    depths = [1] * len(parts)
    while True:
        names = ["/".join(p[-depth:]) for p, depth in zip(parts, depths, strict=True)]
        again = [names.count(name) > 1 for name in names]
        if not any(again):
            return [shown(name) for name in names]
        depths = [depth + more for depth, more in zip(depths, again, strict=True)]


def _parts(spec: str) -> tuple[str, ...]:
    scheme = urlsplit(spec).scheme
    is_path = scheme in ("", "file")
    whole = address(spec) if is_path else spec.removeprefix(f"{scheme}:")
    # what comes first tells a path from all else, where nothing but that differs
    return (scheme, *(part for part in whole.split("/") if part not in ("", ".")))


class Several(Source):
    """Sources in their order; a split is that of all sources that have it."""

    def __init__(self, addresses: Sequence[str], sources: Sequence[Source]) -> None:
        """The names are made of the addresses, as in `distinct_names`."""
        self.names, self.sources = distinct_names(addresses), [*sources]
        # a copy for a worker may have left them behind
        self._own_names = [source.class_names() for source in sources]
        self._extra, self._left_out = unified(source.extra_columns() for source in sources)

    def fingerprint(self) -> str:
        """A hash of what tells each of them from any other, and of their names, which are in paths."""
        told = [f"{name}\0{s.fingerprint()}\n" for name, s in self._named()]
        return hashlib.sha256("".join(told).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """As each of them does."""
        for source in self.sources:
            source.check_unchanged()

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Those of all sources, one source after the other."""
        return [
            replace(chunk, source=number)
            for number, source in enumerate(self.sources)
            for chunk in source.chunks(split, rows)
        ]

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's samples, integers as the names that their source has for them.

        Raises:
            UserError: a label that its source has no name for, or as the source itself.
        """
        name, known = self.names[chunk.source], self._own_names[chunk.source]
        for sample in self.sources[chunk.source].read(chunk):
            label = sample.label
            if known is not None and isinstance(label, int):
                if not 0 <= label < len(known):
                    raise UserError(
                        f"data.label_column: label {label} of '{name}/{sample.path}' is not among the "
                        f"{len(known)} classes of its source; drop such rows or correct the class names"
                    )
                label = known[label]
            place = f"{name}/{sample.place}" if sample.place else ""
            yield replace(sample, label=label, path=f"{name}/{sample.path}", place=place)

    def contents(self, chunk: Chunk) -> list[str] | None:
        """As the chunk's source has it."""
        return self.sources[chunk.source].contents(chunk)

    def class_names(self) -> list[str] | None:
        """The names of all of them, each once; None where one has none."""
        found: dict[str, None] = {}
        for names in self._own_names:
            if names is None:
                return None
            found |= dict.fromkeys(names)
        return [*found]

    def extra_columns(self) -> dict[str, pa.DataType]:
        """Those of all of them."""
        return self._extra

    def origin(self, split: str) -> str:
        """Where each of them has the split, and which have none."""
        have = [(name, s.origin(split)) for name, s in self._named() if s.chunks(split, 1024)]
        lacking = [name for name, s in self._named() if name not in dict(have)]
        told = ", ".join(n if n == origin else f"{n}: {origin}" for n, origin in have)
        return told + (f" (none in {', '.join(lacking)})" if lacking else "")

    def remarks(self) -> list[str]:
        """Those of each, with its name."""
        found = [f"{name}: {remark}" for name, s in self._named() for remark in s.remarks()]
        return [*found, *told_left_out(self._left_out)]

    def _named(self) -> Iterator[tuple[str, Source]]:
        return zip(self.names, self.sources, strict=True)
