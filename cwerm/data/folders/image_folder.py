"""Folders of images: one folder a class, possibly below or above one folder a split."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from cwerm.data.files.file_source import FileSource
from cwerm.data.files.listing import FoundFile, Listing
from cwerm.data.files.reading import patiently
from cwerm.data.folders.layout import is_split, understand
from cwerm.data.labels import alike, normal, sort_labels
from cwerm.data.names import ARCHIVES, IMAGES, is_side_file, kind_of_name, suffix
from cwerm.data.source import Chunk, Sample, mixed, pieces
from cwerm.errors import UserError, shown
from cwerm.store.storage import open_storage


class ImageFolder(FileSource):
    """Images below class folders; class names are folder names.

    Folders named as splits (``train/`` and ``test/``, or as `split_in_name` knows them) above the
    class folders, or in each of them, are splits, and a validation split is the test split where
    there is no other; without such folders all images are the training split. Whatever lies in a
    class folder is an image, whatever its suffix, apart from side files such as ``.txt``.
    """

    def __init__(self, listing: Listing) -> None:
        self.uri = listing.uri
        side_files = {file.path for file in listing.files if is_side_file(file.path)}
        possible = [file for file in listing.files if file.path not in side_files]
        named = [file.path for file in possible if suffix(file.path) in IMAGES]
        if not possible:
            raise self._no_images(listing)
        self._folders = understand(
            self.uri, [file.path for file in possible], named, listing.folders
        )
        self._splits: dict[str, list[FoundFile]] = defaultdict(list)
        left_out = Counter(map(kind_of_name, side_files))
        for file in possible:
            parts = file.path.split("/")
            split = next((each.split for each in self._folders if each.holds(parts)), None)
            if split:
                self._splits[split].append(file)
            elif file.problem or not named or suffix(file.path) in IMAGES:
                raise UserError(
                    f"data.source: '{self.uri}/{shown(file.path)}' lies in no class folder"
                    + (f" ({file.problem})" if file.problem else "")
                    + "; move it into one, or away"
                )
            else:
                left_out[kind_of_name(file.path)] += 1
        files = sorted((f for part in self._splits.values() for f in part), key=lambda f: f.path)
        super().__init__(listing, tuple(files))
        for split, found in self._splits.items():
            self._splits[split] = [found[i] for i in mixed(file.path for file in found)]
        self._class_at = {each.split: each.class_at for each in self._folders}
        self._remarks = _remarks(Counter(dict(listing.left_out)) + left_out, listing.repeated)
        self._check_folders(listing)
        self._check_classes()
        self._classes = sort_labels(name for names in self._names().values() for name in names)

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_splits": {}}

    def _no_images(self, listing: Listing) -> UserError:
        for file in listing.files:
            if file.path.lower().endswith(ARCHIVES):
                return UserError(
                    f"data.source: '{self.uri}/{shown(file.path)}' is an archive; unpack it and give "
                    "the folder"
                )
        return UserError(
            f"data.source: no images below '{self.uri}'; expected one folder of images a class"
        )

    def _names(self) -> dict[str, set[str]]:
        """The classes of each split."""
        return {
            split: {self._label(f"{folder}/", split) for folder in _folders_of(files)}
            for split, files in self._splits.items()
        }

    def _check_folders(self, listing: Listing) -> None:
        """Raise `UserError` for a folder without images where a class or a split should be."""
        folders = _folders_of(self.files)
        filled = {above for folder in folders for above in _with_those_above(folder)}
        for folder in listing.folders:
            *above, name = folder.split("/")
            of_class = any(tuple(above) == each.folder for each in self._folders)
            of_split = any(
                tuple(above) == each.folder[:-1] for each in self._folders if each.folder
            )
            if folder not in filled and (of_class or (of_split and is_split(name))):
                raise UserError(
                    f"data.source: {'class' if of_class else 'split'} folder "
                    f"'{self.uri}/{shown(folder)}' holds no image; fill it or remove it"
                )

    def _check_classes(self) -> None:
        names = self._names()
        for split, classes in names.items():
            if "" in classes:
                raise UserError(
                    f"data.source: below '{self.uri}' a class folder has no name (two slashes in a row); "
                    "rename the objects"
                )
            twins = sorted(name for name in classes if alike(name) in classes - {name})
            if twins:
                raise UserError(
                    f"data.source: classes '{alike(twins[0])}' and '{twins[0]}' of '{self.uri}' differ "
                    "in blanks alone; join or rename them"
                )
            unknown = classes - names.get("train", classes)
            if unknown:
                name = min(unknown)
                near = [n for n in names["train"] if alike(n).casefold() == alike(name).casefold()]
                has = (
                    f", but '{near[0]}'; name them alike" if near else "; add it there or remove it"
                )
                raise UserError(
                    f"data.source: the {split} split of '{self.uri}' has the class folder "
                    f"'{name}', which train/ has not{has}"
                )

    def _label(self, path: str, split: str) -> str:
        return str(normal(shown(path.split("/")[self._class_at[split]])))

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of up to ``rows`` images and `PART_BYTES`, of all classes: see `mixed`."""
        files = self._splits.get(split, [])
        chunks = []
        for piece in pieces([file.size for file in files], rows):
            part = files[piece]
            problems = tuple(file.problem for file in part)
            paths = tuple(file.path for file in part)
            shown_problems = problems if any(problems) else ()
            chunks.append(Chunk(split, piece.start, len(part), paths, shown_problems))
        return chunks

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The content of the chunk's files.

        Raises:
            UserError: a file can't be read, or the bucket that it lies in does not answer.
        """
        storage = open_storage(self.uri, self.s3)
        problems = chunk.problems or ("",) * len(chunk.files)
        known = chunk.known or (False,) * len(chunk.files)
        for path, problem, is_known in zip(chunk.files, problems, known, strict=True):
            image = b""
            if not problem and not is_known:
                where = f"{self.uri}/{shown(path)}"
                image = patiently(functools.partial(storage.read_bytes, path), where)
            yield Sample(image, self._label(path, chunk.split), shown(path), problem)

    def contents(self, chunk: Chunk) -> list[str]:
        """Of each file that can be opened."""
        problems = chunk.problems or ("",) * len(chunk.files)
        files = zip(chunk.files, problems, strict=True)
        return ["" if problem else self.content_of(path) for path, problem in files]

    def class_names(self) -> list[str]:
        """The class folders' names, sorted naturally."""
        return [str(name) for name in self._classes]

    def origin(self, split: str) -> str:
        """The split's folder."""
        (folder,) = [each for each in self._folders if each.split == split]
        return f"{folder.name}/" if folder.name else "all class folders"

    def remarks(self) -> list[str]:
        """What was left out of the folder, and files that are there by several names."""
        return self._remarks


def _folders_of(files: Iterable[FoundFile]) -> set[str]:
    return {file.path.rpartition("/")[0] for file in files}


def _with_those_above(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _remarks(left_out: Counter[str], repeated: int) -> list[str]:
    lines = []
    if left_out:
        counts = ", ".join(f"{count:,} x {kind}" for kind, count in sorted(left_out.items()))
        lines.append(f"left out: {counts}")
    if repeated:
        lines.append(
            f"{repeated:,} file(s) are links to, or other names of, a file that is read too"
        )
    return lines
