"""Decisions of a person on single labels: a CSV file with a row an image."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cwerm.data.labels import normal
from cwerm.errors import UserError, did_you_mean

__all__ = ["COLUMNS", "DECISIONS", "Corrected", "Correction", "Corrections"]

COLUMNS = ("path", "label", "decision", "new_label")
CONFIRMED, RELABELLED, REMOVED = "confirmed", "relabelled", "removed"
DECISIONS = (CONFIRMED, RELABELLED, REMOVED)


@dataclass(frozen=True)
class Correction:
    """What was decided of one image, and its row of ``corrections.csv``."""

    path: str
    """As `find`, `inspect` and `export` name it."""
    label: str
    """The label it had then; "" where that is not said."""
    decision: str
    """``confirmed``, ``relabelled`` or ``removed``."""
    new_label: str
    """Of a relabelled one; else ""."""


class Corrected(NamedTuple):
    """Some images after corrections; each array is [n]."""

    labels: np.ndarray
    """int32, those in use."""
    known: np.ndarray
    """bool: a person has said that the label is right."""
    removed: np.ndarray
    """bool: the image is not to be used."""


class Corrections:
    """All decisions of one file."""

    def __init__(self, rows: Sequence[Correction]) -> None:
        self.rows = {row.path: row for row in rows}
        told = "\n".join(repr((r.path, r.decision, r.new_label)) for r in rows)
        self.digest = hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()
        """Tells these decisions from any others."""

    @classmethod
    def read(cls, data: bytes) -> Corrections:
        """Those of a CSV file with the columns path and decision, and where needed new_label.

        A column label is compared with the label that the image has; others are left alone. A row without
        a decision decides nothing, so that a list of suspects can be filled in.

        Raises:
            ValueError: it is no such file, or two rows decide on one path differently.
        """
        try:
            lines = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
            columns = lines.fieldnames or []
            for needed in ("path", "decision"):
                if needed not in columns:
                    hint = did_you_mean(needed, columns)
                    raise ValueError(f"has no column '{needed}'{hint} (needs: path, decision)")
            found: dict[str, Correction] = {}
            for line in lines:
                row = _correction(line, lines.line_num)
                if row is not None and found.setdefault(row.path, row) != row:
                    raise ValueError(
                        f"line {lines.line_num}: decides on '{row.path}' again, and otherwise"
                    )
        except UnicodeDecodeError:
            raise ValueError("is no text in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"line {lines.line_num}: {error}") from None
        return cls([*found.values()])

    def apply(
        self, paths: Sequence[str], labels: np.ndarray, names: Sequence[str]
    ) -> tuple[Corrected, set[str]]:
        """The images at ``paths`` after these decisions, and the paths that were decided on.

        Raises:
            ValueError: a class that is not among ``names``, a label that is not the one it was, or a path
                of several images.
        """
        codes = {name: code for code, name in enumerate(names)}
        used, known = labels.copy(), np.zeros(len(labels), bool)
        removed, decided = known.copy(), set()
        for row, path in enumerate(paths):
            found = self.rows.get(path)
            if found is None:
                continue
            if path in decided:
                raise ValueError(
                    f"'{path}' names more than one image, so a decision on it is on none; give the images "
                    "paths of their own"
                )
            decided.add(path)
            has = names[labels[row]]
            if found.label and normal(found.label) != has:
                raise ValueError(
                    f"'{path}' was '{found.label}' when it was {found.decision}, and is '{has}' now; "
                    "decide anew, or leave the row out"
                )
            if found.decision == REMOVED:
                removed[row] = True
                continue
            known[row] = True
            if found.decision == RELABELLED:
                wanted = str(normal(found.new_label))
                if wanted not in codes:
                    hint = did_you_mean(wanted, names) or f"; there are {len(names)} classes"
                    raise ValueError(f"'{path}' becomes '{wanted}', which is no class{hint}")
                used[row] = codes[wanted]
        return Corrected(used, known, removed), decided


def _correction(line: dict[str, str | None], number: int) -> Correction | None:
    path, label, decision, new_label = (line.get(column) or "" for column in COLUMNS)
    decision = decision.strip()
    if not decision:
        return None
    if not path:
        raise ValueError(f"line {number}: has no path")
    if decision not in DECISIONS:
        hint = did_you_mean(decision, DECISIONS) or f"; choose one of {', '.join(DECISIONS)}"
        raise ValueError(f"line {number}: unknown decision '{decision}'{hint}")
    if decision == RELABELLED and not new_label:
        raise ValueError(f"line {number}: '{path}' is relabelled, and new_label is empty")
    return Correction(path, label, decision, new_label if decision == RELABELLED else "")


def check_paths(unknown: set[str], key: str) -> None:
    """Refuse decisions on images that there are not.

    Raises:
        UserError: naming the first of them.
    """
    if unknown:
        first, more = min(unknown), len(unknown) - 1
        others = f" and {more:,} more" if more else ""
        raise UserError(
            f"{key}: no image '{first}'{others} in data.source; paths are those of suspects.csv, "
            "relative to the source"
        )
