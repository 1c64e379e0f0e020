"""The classes of a data set: names in order, and the code of each label, whatever source it is from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cwerm.data.labels import Label, alike, normal, sort_labels
from cwerm.data.source import Source
from cwerm.errors import UserError, blame
from cwerm.stages.ingest.scan import Scan
from cwerm.stages.ingest.several import same_kind
from cwerm.stages.ingest.sources import WorkItem
from cwerm.terminal import console


def encode(
    sources: dict[str, Source], items: list[WorkItem], scans: list[Scan]
) -> tuple[list[str], list[np.ndarray]]:
    """Class names and, for each chunk, the class of each row, -1 where it is not readable.

    Classes are matched by name: each source's integers stand for the names that it knows. Of the names
    that the training images' source knows, those without an image are left out.

    Raises:
        UserError: a label that is no class of the training images, or names and integers are mixed.
    """
    own_names = {role: source.class_names() for role, source in sources.items()}
    named = []
    for (_, role, _), scan in zip(items, scans, strict=True):
        with blame("data.label_column"):
            named.append({label: _name(label, own_names[role]) for label in scan.labels})
    found = [
        (chunk.source, name)
        for (table, _, chunk), of_labels in zip(items, named, strict=True)
        if table == "images"
        for name in of_labels.values()
    ]
    are_numbers = same_kind(sources["source"], found)
    train = {str(name) if are_numbers else name for _, name in found}
    with blame("data.label_column"):
        names = _ordered(train, own_names["source"])
    known = {name: code for code, name in enumerate(names)}
    codes = []
    for (_, role, chunk), scan, of_labels in zip(items, scans, named, strict=True):
        for name in of_labels.values():
            if str(name) not in known:
                raise _unknown(role, chunk.split, name, names)
        code_of = np.array([known[str(name)] for name in of_labels.values()], dtype=np.int32)
        codes.append(np.where(scan.readable, code_of[scan.label_of], -1).astype(np.int32))
    return names, codes


def _name(label: Label, own_names: list[str] | None) -> Label:
    """What the label stands for: a name where its source has them, the integer itself where not."""
    if isinstance(label, str) or own_names is None:
        return normal(label)
    if not 0 <= label < len(own_names):
        raise ValueError(
            f"label {label} is not among the source's {len(own_names)} classes; "
            "drop such rows or correct the class names"
        )
    return normal(own_names[label])


def _ordered(found: Iterable[Label], own_names: list[str] | None) -> list[str]:
    """The classes that occur: in their source's order, or else sorted naturally."""
    in_natural_order = [str(label) for label in sort_labels(found)]
    if own_names is None:
        return in_natural_order
    order = list(dict.fromkeys(str(normal(name)) for name in own_names))
    unnamed = sorted(set(in_natural_order) - set(order))
    if unnamed:
        raise ValueError(
            f"label '{unnamed[0]}' is not among the source's {len(order)} classes; "
            "drop such rows or correct the class names"
        )
    occurring = set(in_natural_order)
    empty = [name for name in order if name not in occurring]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        console.note(
            f"{len(empty)} of {len(order)} classes have no training image and are left out: "
            f"{', '.join(empty[:5])}{more}"
        )
    return [name for name in order if name in occurring]


def _unknown(role: str, split: str, name: Label, names: list[str]) -> UserError:
    known = f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
    if not isinstance(name, str) and not all(each.lstrip("-").isdigit() for each in names):
        return UserError(
            f"data.{role}: {split} labels are integers without names, such as {name}, and the "
            f"training classes have names {known}; write the names there"
        )
    near = [each for each in names if alike(each).casefold() == alike(str(name)).casefold()]
    return UserError(
        f"data.{role}: {split} class '{name}' is not among the training classes {known}; "
        + (f"there is '{near[0]}': name them alike" if near else "remove it or rename it")
    )


def check_classes(
    source: str, names: list[str], items: list[WorkItem], codes: list[np.ndarray]
) -> None:
    """Raise `UserError` unless there are two classes or more, each with a training image."""
    train = np.concatenate([c for (t, _, _), c in zip(items, codes, strict=True) if t == "images"])
    present = np.unique(train[train >= 0])
    if len(present) == 0:
        raise UserError(f"data.source: '{source}' has no readable image; check the files")
    if len(present) == 1:
        raise UserError(
            f"data.source: all images of '{source}' are of class '{names[present[0]]}'; "
            "a classifier needs at least two"
        )
    if len(present) < len(names):
        missing = sorted(set(range(len(names))) - set(present.tolist()))
        raise UserError(
            f"data.source: class '{names[missing[0]]}' has no readable training image; "
            "add some or remove the class"
        )
