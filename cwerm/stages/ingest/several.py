"""What the sources of one job have in common, and what not: in lines for a person to check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cwerm.data.labels import Label, alike
from cwerm.data.several import Several
from cwerm.data.source import Source
from cwerm.errors import UserError

FEW = 8  # classes that are told by name


def number_of_sources(source: Source) -> int:
    """How many sources there are in one."""
    return len(source.names) if isinstance(source, Several) else 1


def told_of_sources(source: Source, counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """How many images each source has, classes that one alone has, and names that are nearly the same.

    Args:
        source: all of them as one; nothing is told of any other kind.
        counts: training images of each source and class, int64 [sources, classes].
        names: of the classes.
    """
    if not isinstance(source, Several):
        return []
    sizes = zip(source.names, counts.sum(axis=1), strict=True)
    lines = [f"{len(counts)} sources: {', '.join(f'{name} {n:,}' for name, n in sizes)}"]
    lonely = (counts > 0).sum(axis=0) == 1
    for number, name in enumerate(source.names):
        alone = [names[code] for code in np.flatnonzero(lonely & (counts[number] > 0)).tolist()]
        if alone:
            more = f" and {len(alone) - FEW} more" if len(alone) > FEW else ""
            lines.append(f"classes that {name} alone has: {', '.join(alone[:FEW])}{more}")
    return [*lines, *_nearly_the_same(source.names, counts, names)]


def _nearly_the_same(sources: Sequence[str], counts: np.ndarray, names: Sequence[str]) -> list[str]:
    near: dict[str, list[int]] = {}
    for code, name in enumerate(names):
        near.setdefault(alike(name).casefold(), []).append(code)
    lines = []
    for codes in near.values():
        if len(codes) > 1:
            where = [
                f"'{names[code]}' ({', '.join(np.array(sources)[counts[:, code] > 0])})"
                for code in codes
            ]
            lines.append(f"{' and '.join(where)} are counted as classes of their own")
    return lines


def same_kind(source: Source, found: Sequence[tuple[int, Label]]) -> bool:
    """Whether labels that are integers in one source, and text in another, are the same numbers.

    Args:
        source: all of them as one.
        found: the labels of the training images, each with its source.

    Raises:
        UserError: one source has integers without names, another has names.
    """
    if not isinstance(source, Several):
        return False
    texts = [(number, label) for number, label in found if isinstance(label, str)]
    numbers = [(number, label) for number, label in found if not isinstance(label, str)]
    if not texts or not numbers:
        return False
    named = next(((n, label) for n, label in texts if not label.lstrip("-").isdecimal()), None)
    if named is not None:
        raise UserError(
            f"data.source: labels of '{source.names[numbers[0][0]]}' are integers without names, such as "
            f"{numbers[0][1]}, and those of '{source.names[named[0]]}' are names, such as '{named[1]}'; "
            "write names into both"
        )
    return True
