"""Labels as sources write them, to class codes 0..C-1."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

Label = str | int


def normal(label: Label) -> Label:
    """The label with its letters composed (NFC): what macOS writes apart is the same name."""
    return unicodedata.normalize("NFC", label) if isinstance(label, str) else label


def alike(name: str) -> str:
    """The name without blanks at its ends, double blanks and letters that nobody sees."""
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return " ".join(visible.split())


def sort_labels(labels: Iterable[Label]) -> list[Label]:
    """Distinct `normal` labels in natural order: integers by value, text with its numbers by value.

    Raises:
        ValueError: integers and text are mixed.
    """
    distinct = {normal(label) for label in labels}
    kinds = {isinstance(label, str) for label in distinct}
    if len(kinds) > 1:
        raise ValueError("labels mix text and integers; write all of them as text")
    return sorted(distinct, key=_natural_key)


def _natural_key(label: Label) -> tuple[list[int | str], str]:
    if not isinstance(label, str):
        return [int(label)], ""
    # Text and numbers alternate, so that equal positions always compare like with like.
    parts = re.split(r"(\d+)", label)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], label


def class_mapping(
    labels: Iterable[Label], class_names: Sequence[str] | None = None
) -> tuple[list[str], dict[Label, int]]:
    """Class names in order of their codes, and the code of each label as `normal` gives it.

    Labels read in pieces are merged by passing the union of the pieces' labels.

    Args:
        labels: every label that occurs, repeated or not.
        class_names: the source's own names: integer labels index them, text labels are among them.
            All of them are kept, whether they occur or not.

    Raises:
        ValueError: a label is not among the class names, or integers and text are mixed.
    """
    ordered = sort_labels(labels)
    if class_names is None:
        return [str(label) for label in ordered], {label: i for i, label in enumerate(ordered)}
    codes: dict[Label, int]
    if ordered and isinstance(ordered[0], str):
        codes = {normal(name): code for code, name in enumerate(class_names)}
    else:
        codes = {code: code for code in range(len(class_names))}
    for label in ordered:
        if label not in codes:
            raise ValueError(
                f"label {label!r} is not among the source's {len(class_names)} classes; "
                "drop such rows or correct the class names"
            )
    return [str(normal(name)) for name in class_names], {label: codes[label] for label in ordered}
