"""Which folders are classes and which are splits; where that is not plain, a question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cwerm.data.files.file_source import SplitName, held_out_split, split_in_name
from cwerm.errors import UserError, shown


@dataclass(frozen=True)
class SplitFolder:
    """A split's images: those below ``folder``, the class folder being the path's part ``class_at``.

    Where class folders hold the splits, ``inner`` is the name of the split's folder in each.
    """

    split: str
    folder: tuple[str, ...]
    inner: str = ""

    @property
    def class_at(self) -> int:
        """The place of the class folder among the parts of a path."""
        return len(self.folder)

    @property
    def name(self) -> str:
        """How it is told to a person."""
        below = [*self.folder, *(["<class>", self.inner] if self.inner else [])]
        return shown("/".join(below))

    def holds(self, parts: list[str]) -> bool:
        """Whether a file, by the parts of its path, lies in a class folder of this split."""
        depth = self.class_at + (2 if self.inner else 1)
        is_below = len(parts) > depth and tuple(parts[: self.class_at]) == self.folder
        return is_below and self.inner in ("", parts[depth - 1])


class _Tree:
    """Folders with images somewhere below them (``below``), and directly in them (``flat``)."""

    def __init__(
        self, uri: str, paths: Iterable[str], surely_images: Iterable[str], folders: Iterable[str]
    ) -> None:
        self.uri = uri
        self.flat = {_parent(path) for path in surely_images}
        self.below: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for folder in {_parent(path) for path in paths}:
            for depth, name in enumerate(folder):
                self.below[folder[:depth]].add(name)
        self.all = defaultdict(set, {folder: set(names) for folder, names in self.below.items()})
        for path in folders:
            self.all[_parent(path)].add(path.rpartition("/")[2])

    def only_folder(self, folder: tuple[str, ...]) -> str | None:
        """The one folder in ``folder`` that is not a class but holds folders alone, if so."""
        if folder in self.flat or len(self.all[folder]) != 1 or not self.below[folder]:
            return None
        (name,) = self.below[folder]
        inner = (*folder, name)
        return name if self.below[inner] and inner not in self.flat else None

    def question(self, text: str) -> UserError:
        return UserError(f"data.source: '{shown(self.uri)}' {text}")


def _parent(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")[:-1])


def understand(
    uri: str, paths: list[str], surely_images: list[str], folders: Iterable[str] = ()
) -> list[SplitFolder]:
    """The splits of the files at ``paths``; one without folder names where there are classes alone.

    Folders above all classes or splits are looked through.

    Args:
        uri: the root, for messages.
        paths: of all files that may be images.
        surely_images: those among them whose names say so.
        folders: all that there are, also those without images.

    Raises:
        UserError: the folders can be read in two ways.
    """
    tree = _Tree(uri, paths, surely_images or paths, folders)
    top: tuple[str, ...] = ()
    while (name := tree.only_folder(top)) and not _split_folders([name]):
        top = (*top, name)
    named = _split_folders(tree.below[top])
    if not named:
        return _inner_splits(tree, top) or [SplitFolder("train", top)]
    others = sorted(tree.below[top] - named.keys())
    with_classes = [name for name in named if tree.below[(*top, name)]]
    some = _list(named)
    if not with_classes:
        if others and len({found.split for found in named.values()}) == 1:
            return [SplitFolder("train", top)]  # a class that is called train, say, among others
        raise tree.question(
            f"has images in {some}, which are named as splits, but no class folders in them; "
            "put each class into a folder there, or rename them if they are classes"
        )
    if others:
        raise tree.question(
            f"has split folders ({some}) and also images in {_list(others)}; "
            "move those away, or rename the split folders if they are classes"
        )
    renamed = _renamed(tree, {name: found.split for name, found in named.items()})
    return _without_wrappers(tree, [SplitFolder(renamed[name], (*top, name)) for name in named])


def _named(name: str) -> SplitName | None:
    try:
        return split_in_name(name)
    except ValueError:
        return None


def is_split(name: str) -> bool:
    """Whether a folder's name is that of a split and says nothing else."""
    found = _named(name)
    return found is not None and not found.others


def _split_folders(names: Iterable[str]) -> dict[str, SplitName]:
    """Those named as splits. Other words beside count where two splits have the same (``seg_train``)."""
    named = {name: found for name in sorted(names) if (found := _named(name))}
    splits = defaultdict(set)
    for found in named.values():
        splits[found.others].add(found.split)
    return {
        name: found
        for name, found in named.items()
        if not found.others or len(splits[found.others]) > 1
    }


def _renamed(tree: _Tree, named: dict[str, str]) -> dict[str, str]:
    """Each folder's split, with the only held-out one as ``test``."""
    for name, split in named.items():
        same = [other for other, its in named.items() if its == split]
        if len(same) > 1:
            raise tree.question(
                f"has {_list(same)}, which all name the {split} split; join them or rename one"
            )
        assert name in same
    renamed = held_out_split(named.values())
    return {name: renamed[split] for name, split in named.items()}


def _without_wrappers(tree: _Tree, splits: list[SplitFolder]) -> list[SplitFolder]:
    """Look through a folder between a split and its classes, as in ``seg_train/seg_train/forest``."""
    classes: set[str] = set()
    found = []
    for split in sorted(splits, key=lambda split: split.split != "train"):
        folder = split.folder
        while (name := tree.only_folder(folder)) and name not in classes:
            folder = (*folder, name)
        if split.split == "train":
            classes = tree.below[folder]
        found.append(SplitFolder(split.split, folder))
    return found


def _inner_splits(tree: _Tree, top: tuple[str, ...]) -> list[SplitFolder]:
    """Splits below each class (``cat/train``), [] where there are none."""
    by_class = {name: tree.below[(*top, name)] for name in sorted(tree.below[top])}
    named = {name: _split_folders(inside) for name, inside in by_class.items()}
    if not any(named.values()):
        return []
    whole = [
        name
        for name, inside in by_class.items()
        if inside and named[name].keys() == inside and (*top, name) not in tree.flat
    ]
    if len(whole) == len(by_class):
        all_named = {
            folder: found.split for inner in named.values() for folder, found in inner.items()
        }
        for name, inside in by_class.items():
            if deep := [folder for folder in sorted(inside) if tree.below[(*top, name, folder)]]:
                raise tree.question(
                    f"has split folders with folders in them below {_list(by_class)}, such as "
                    f"'{shown(name)}/{shown(deep[0])}/'; give one of those, or join them"
                )
        renamed = _renamed(tree, all_named)
        return [SplitFolder(split, top, folder) for folder, split in renamed.items()]
    for name, inner in named.items():
        splits = {found.split for found in inner.values()}
        if len(splits) > 1 or (inner and inner.keys() == by_class[name]):
            other = next((n for n in by_class if n not in whole), name)
            raise tree.question(
                f"has split folders in the class '{shown(name)}' ({_list(inner)}), but "
                f"not only such in '{shown(other)}'; give each class the same split folders, "
                "or put train/ and test/ above the classes"
            )
    return []


def _list(names: Iterable[str]) -> str:
    listed = [f"'{shown(name)}/'" for name in names]
    return ", ".join(listed[:4]) + (", ..." if len(listed) > 4 else "")
