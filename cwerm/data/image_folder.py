"""Folders of images: one folder a class, possibly below one folder a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from cwerm.data.files import SPLIT_NAMES, File, FileSource, Listing, held_out_split
from cwerm.data.labels import sort_labels
from cwerm.data.source import Chunk, Sample
from cwerm.errors import UserError
from cwerm.storage import open_storage

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".webp", ".avif", ".gif", ".bmp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    ]
)


def is_image(path: str) -> bool:
    """Whether the file's suffix is that of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


class ImageFolder(FileSource):
    """Images below class folders; class names are folder names.

    ``train/`` with ``test/`` or ``val/`` above the class folders are splits, and ``val/`` is the
    test split where there is no ``test/``; without such folders all images are the training split.
    Other files and hidden files are ignored.
    """

    def __init__(self, listing: Listing) -> None:
        images = tuple(file for file in listing.files if is_image(file.path))
        super().__init__(listing, images)
        if not images:
            raise UserError(
                f"data.source: no images below '{self.uri}'; expected one folder of images a class"
            )
        tops = {top for top, _, below in (f.path.partition("/") for f in images) if below}
        deep = {file.path.partition("/")[0] for file in images if file.path.count("/") > 1}
        split_folders = tops & SPLIT_NAMES.keys() & deep
        self._depth = int(tops <= SPLIT_NAMES.keys() and bool(split_folders))
        if not self._depth and "train" in split_folders and len(split_folders) > 1:
            other = min(tops - SPLIT_NAMES.keys())
            raise UserError(
                f"data.source: '{self.uri}' has split folders and also images in '{other}/'; "
                "point to a folder that holds only train/ and test/ (or val/)"
            )
        self._splits = self._group(images, tops)
        self._check_classes(listing, tops)
        self._classes = sort_labels({self._label(file.path) for file in images})

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_splits": {}}

    def _group(self, images: tuple[File, ...], tops: set[str]) -> dict[str, list[str]]:
        renamed = held_out_split(SPLIT_NAMES[top] for top in tops) if self._depth else {}
        splits: dict[str, list[str]] = defaultdict(list)
        for file in images:
            parts = file.path.split("/")
            if len(parts) < self._depth + 2:
                raise UserError(
                    f"data.source: '{self.uri}/{file.path}' lies in no class folder; "
                    "move it into one, or away"
                )
            splits[renamed[SPLIT_NAMES[parts[0]]] if self._depth else "train"].append(file.path)
        return dict(splits)

    def _check_classes(self, listing: Listing, tops: set[str]) -> None:
        with_images = {tuple(file.path.split("/")[: self._depth + 1]) for file in self.files}
        for folder in listing.folders:
            parts = tuple(folder.split("/"))
            is_class = len(parts) == self._depth + 1 and (not self._depth or parts[0] in tops)
            if is_class and parts not in with_images:
                raise UserError(
                    f"data.source: class folder '{self.uri}/{folder}' holds no image; "
                    "fill it or remove it"
                )
        trained = {self._label(path) for path in self._splits.get("train", [])}
        for split, paths in self._splits.items():
            unknown = {self._label(path) for path in paths} - trained
            if trained and unknown:
                raise UserError(
                    f"data.source: the {split} split of '{self.uri}' has the class folder "
                    f"'{min(unknown)}', which train/ has not; add it there or remove it"
                )

    def _label(self, path: str) -> str:
        return path.split("/")[self._depth]

    def chunks(self, split: str, rows: int) -> list[Chunk]:
        """Runs of up to ``rows`` images, sorted by path."""
        paths = self._splits.get(split, [])
        return [
            Chunk(split, start, len(part), tuple(part))
            for start in range(0, len(paths), rows)
            for part in [paths[start : start + rows]]
        ]

    def read(self, chunk: Chunk) -> Iterator[Sample]:
        """The chunk's files; ``b""`` for one that can't be read.

        Raises:
            UserError: the bucket they lie in does not answer, which says nothing about the images.
        """
        storage = open_storage(self.uri, self.s3)
        for path in chunk.files:
            try:
                image = storage.read_bytes(path)
            except OSError:
                image = b""
            yield Sample(image, self._label(path), path)

    def class_names(self) -> list[str]:
        """The class folders' names, sorted naturally."""
        return [str(name) for name in self._classes]
