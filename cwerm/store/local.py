"""The storage that is a local folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cwerm.errors import FULL, UserError, is_full
from cwerm.store.exclusive import give_name
from cwerm.store.objects import Entry, Storage


class LocalStorage(Storage):
    """A folder; writes go to a temporary name first, which then becomes the object's.

    Where others may write to the folder as well, they may write to all that is made below it.
    """

    def _path(self, path: str) -> Path:
        return Path(self.root, path)

    def clock(self) -> int:
        with self._partial(".clock") as partial:
            partial.touch()
            return partial.stat().st_mtime_ns

    def read_bytes(self, path: str) -> bytes:
        try:
            return self._path(path).read_bytes()
        except PermissionError as error:
            raise self._refused("read", path, error) from error

    def write_bytes(self, path: str, data: bytes, *, if_absent: bool = False) -> bool:
        target = self._path(path)
        with self._partial(path) as partial:
            with partial.open("wb") as file:
                self._share(partial)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if if_absent:
                return give_name(partial, target)
            partial.replace(target)
            return True

    def upload(self, source: Path, path: str) -> None:
        with self._partial(path) as partial:
            shutil.copyfile(source, partial)
            self._share(partial)
            partial.replace(self._path(path))

    @contextmanager
    def _partial(self, path: str) -> Iterator[Path]:
        """A name beside the target for the time of the write; nothing of that name is left."""
        target = self._path(path)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self._make_folders(target.parent)
            yield partial
        except OSError as error:
            if is_full(error):
                raise UserError(FULL.format(self.root)) from None
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise self._refused("written", path, error) from error
            raise
        finally:
            with suppress(PermissionError):
                partial.unlink(missing_ok=True)

    def _make_folders(self, folder: Path) -> None:
        """As `Path.mkdir` with parents, but those below the root take its permissions where it is shared."""
        if folder.is_dir():
            return
        if folder == Path(self.root) or Path(self.root) not in folder.parents:
            folder.mkdir(parents=True, exist_ok=True)
            return
        self._make_folders(folder.parent)
        try:
            folder.mkdir()
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            self._share(folder)

    def _share(self, path: Path) -> None:
        """Let those who may write to the root write to what was just made."""
        mode = os.stat(self.root).st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            # the sticky bit would keep them from replacing each other's files
            wanted = mode & (0o2777 if path.is_dir() else 0o666)
            if stat.S_IMODE(path.stat().st_mode) | wanted != stat.S_IMODE(path.stat().st_mode):
                path.chmod(stat.S_IMODE(path.stat().st_mode) | wanted)

    def _refused(self, what: str, path: str, error: OSError) -> UserError:
        try:
            owner = f", whose owner is {self._existing(path).owner()}"
        except (OSError, KeyError):
            owner = ""
        return UserError(
            f"storage: '{self._path(path)}' can't be {what} ({error.strerror}){owner}; ask for permissions "
            f"there (a store for several users is a folder that all may write to), or choose another "
            "with --storage"
        )

    def _existing(self, path: str) -> Path:
        """The object, or the first folder above it that is there."""
        place = self._path(path)
        while not os.path.lexists(place):
            place = place.parent
        return place

    def stat(self, path: str) -> Entry | None:
        try:
            found = self._path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise self._refused("read", path, error) from error
        return Entry(path, found.st_size, found.st_mtime_ns)

    def walk(self, folder: str, start: str = "") -> Iterator[Entry]:
        for parent, folders, names in os.walk(self._path(folder)):
            if start and Path(parent) == self._path(folder):
                folders[:], names = (
                    [n for n in of if n.startswith(start)] for of in (folders, names)
                )
            folders.sort()
            for name in sorted(names):
                entry = self.stat(os.path.relpath(os.path.join(parent, name), self.root))
                if entry is not None:  # it may have gone meanwhile
                    yield entry

    def delete(self, path: str) -> None:
        try:
            self._path(path).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except PermissionError as error:
            raise self._refused("removed", path, error) from error

    def remove_empty_folders(self, folder: str) -> None:
        for parent, _, _ in os.walk(self._path(folder), topdown=False):
            try:
                os.rmdir(parent)
            except OSError:
                continue  # something is in it
