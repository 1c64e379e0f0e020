"""What a manifest says: the files of an artifact, read with the care that a stranger's words need."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

MOST = 2**48  # bytes or rows of a file: more is nonsense


@dataclass(frozen=True)
class File:
    """One immutable file of an artifact; ``path`` is relative to the artifact's folder."""

    path: str
    bytes: int
    sha256: str
    rows: int = 0
    contents: str = ""
    """A digest of what a part was to hold, by which a later attempt knows whether it can be taken over."""

    @classmethod
    def parse(cls, entry: Any) -> File:
        """The file that an entry of a manifest or marker names, which nobody has checked.

        Raises:
            ValueError: the entry is not one, or its path leaves the artifact.
        """
        if not isinstance(entry, dict) or not is_inside(entry.get("path")):
            raise ValueError("no file of this artifact")
        for name in ("bytes", "rows"):
            number = entry.get(name, 0)
            if type(number) is not int or not 0 <= number <= MOST:
                raise ValueError(f"{name} is no possible number")
        if not re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))):
            raise ValueError("no checksum")
        if not isinstance(entry.get("contents", ""), str):
            raise ValueError("contents are no digest")
        try:
            return cls(**entry)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Artifact:
    """A committed result of a stage: a reference, small and picklable."""

    stage: str
    key: str
    tables: dict[str, tuple[File, ...]]
    files: dict[str, File]
    info: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def folder(self) -> str:
        """Where it lies, relative to the storage root."""
        return folder_of(self.stage, self.key)

    def all_files(self) -> list[File]:
        """Everything it is made of."""
        return [*self.files.values(), *(f for parts in self.tables.values() for f in parts)]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to make it of, such as test images."""
        return not self.files and not any(map(self.rows, self.tables))

    def rows(self, table: str) -> int:
        """The number of rows of one of its tables."""
        return sum(part.rows for part in self.tables[table])


def is_inside(path: Any) -> bool:
    """Whether it is a relative path to something below the folder that it starts from."""
    if not isinstance(path, str) or "\\" in path or "\0" in path:
        return False
    return all(name not in ("", ".", "..") for name in path.split("/"))


def folder_of(stage: str, key: str) -> str:
    """Where an artifact lies, relative to the storage root."""
    return f"artifacts/{stage}/{key}"


def parse_manifest(stage: str, key: str, manifest: dict[str, Any]) -> Artifact:
    """The artifact of a ``manifest.json``.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no manifest.
    """
    info, seconds = manifest["info"], manifest["seconds"]
    if not isinstance(info, dict):
        raise TypeError("info is no mapping")
    if type(seconds) not in (int, float) or not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError("seconds are no time")
    return Artifact(
        stage=stage,
        key=key,
        tables={
            name: tuple(File.parse(part) for part in parts)
            for name, parts in manifest["tables"].items()
        },
        files={name: File.parse(entry) for name, entry in manifest["files"].items()},
        info=info,
        seconds=seconds,
    )
