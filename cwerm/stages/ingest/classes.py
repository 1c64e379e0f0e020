"""The classes of a data set: names in order, and the code of each label, whatever source it is from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cwerm.data.labels import Label, alike, normal, sort_labels
from cwerm.data.source import Source
from cwerm.errors import UserError, blame
from cwerm.stages.ingest.rows.survey import SeenLabel
from cwerm.stages.ingest.several import same_kind
from cwerm.terminal import console


def encode(sources: dict[str, Source], seen: Sequence[SeenLabel]) -> tuple[list[str], np.ndarray]:
    """Class names and, for each label that was seen, its class, int32.

    Classes are matched by name: each source's integers stand for the names that it knows. Of the names
    that the training images' source knows, those without an image are left out.

    Raises:
        UserError: a label that is no class of the training images, or names and integers are mixed.
    """
    own_names = {role: source.class_names() for role, source in sources.items()}
    order = sorted(range(len(seen)), key=lambda number: (seen[number].chunk, seen[number].place))
    named: dict[int, Label] = {}
    for number in order:
        with blame("data.label_column"):
            named[number] = _name(seen[number].label, own_names[seen[number].role])
    found = [(seen[n].source, named[n]) for n in order if seen[n].table == "images"]
    are_numbers = same_kind(sources["source"], found)
    train = {str(name) if are_numbers else name for _, name in found}
    with blame("data.label_column"):
        names = _ordered(train, own_names["source"])
    known = {name: code for code, name in enumerate(names)}
    code_of = np.empty(len(seen), np.int32)
    for number in order:
        if str(named[number]) not in known:
            raise _unknown(seen[number].role, seen[number].split, named[number], names)
        code_of[number] = known[str(named[number])]
    return names, code_of


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


def check_classes(source: str, names: list[str], sizes: np.ndarray) -> None:
    """Raise `UserError` unless there are two classes or more, each with a training image.

    ``sizes`` [classes] are the readable training images of each.
    """
    present = np.flatnonzero(sizes)
    if len(present) == 0:
        raise UserError(f"data.source: '{source}' has no readable image; check the files")
    if len(present) == 1:
        raise UserError(
            f"data.source: all images of '{source}' are of class '{names[present[0]]}'; "
            "a classifier needs at least two"
        )
    if len(present) < len(names):
        missing = int(np.flatnonzero(sizes == 0)[0])
        raise UserError(
            f"data.source: class '{names[missing]}' has no readable training image; "
            "add some or remove the class"
        )
