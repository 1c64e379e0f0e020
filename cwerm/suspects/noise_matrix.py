"""Which classes are taken for which: how many labels of each look like those of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NoiseMatrix", "noise_matrix"]

CLASSES = 25  # that a matrix can be read with
PAIRS = 30  # listed where there are more classes


@dataclass(frozen=True)
class NoiseMatrix:
    """Counts of suspects by given label (row) and what it looks like (column)."""

    names: list[str]
    """All classes in their order, or of many those of the most frequent pairs."""
    counts: list[list[int | None]]
    """[shown, shown]; on the diagonal the labels that nothing speaks against, None where not known."""
    largest: int
    """Off the diagonal."""
    num_classes: int
    total: int
    """Suspects in all."""
    left_out: int
    """Suspects of pairs that are not among the shown."""
    pairs: list[tuple[str, str, int]]
    """The most frequent: given, suggested, suspects."""


def noise_matrix(
    names: Sequence[str],
    suspects: Mapping[tuple[str, str], int],
    unsuspected: Mapping[str, int] | None = None,
) -> NoiseMatrix:
    """From the suspects by given and suggested class, and by class the labels that look right."""
    pairs = [(*pair, count) for pair, count in Counter(suspects).most_common()]
    shown = [*names]
    if len(shown) > CLASSES:
        chosen: set[str] = set()
        for given, suggested, _ in pairs:
            if len(chosen | {given, suggested}) <= CLASSES:
                chosen |= {given, suggested}
        shown = [name for name in names if name in chosen]
    counts = [[suspects.get((given, other), 0) for other in shown] for given in shown]
    inside = sum(map(sum, counts))
    own = unsuspected or {}
    table: list[list[int | None]] = [
        [own.get(given) if place == row else count for place, count in enumerate(counts[row])]
        for row, given in enumerate(shown)
    ]
    largest = max((count for row in counts for count in row), default=0)
    total = sum(suspects.values())
    return NoiseMatrix(shown, table, largest, len(names), total, total - inside, pairs[:PAIRS])
