"""What lies below a local or ``s3://`` root: files, folders, and what was left out and why."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyarrow import fs

from cwerm.errors import UserError, shown
from cwerm.job.surroundings import S3
from cwerm.store.storage import filesystem, local_path

SYSTEM_FOLDERS = {
    *(
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@sharesnap",
        "@synoresource",
        "@tmp",
        "#recycle",
    ),
    *("#snapshot", "~snapshot", "$recycle.bin", "recycler", "system volume information"),
    *("lost+found", "found.000", "__macosx", "__pycache__", "network trash folder"),
    *("temporary items", "thevolumesettingsfolder"),
}
"""Folders that systems and NAS boxes keep beside the data, with copies or remains of it."""
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


_Folders = tuple[tuple[int, int], ...]  # by device and number


@dataclass(frozen=True)
class FoundFile:
    """A file by its path below the root; size in bytes, time of change in nanoseconds.

    ``problem`` is the reason why it is not to be opened, "" for ordinary files.
    """

    path: str
    size: int
    modified: int
    problem: str = ""


@dataclass(frozen=True)
class Listing:
    """All files and folders below a root, sorted by path, without those hidden and of the system.

    Attributes:
        left_out: a word for each kind of thing that was left out, with how often.
        repeated: files that are links to, or other names of, a file that is listed too.
    """

    uri: str
    files: tuple[FoundFile, ...]
    folders: tuple[str, ...]
    s3: S3 | None = None  # how it was reached
    left_out: tuple[tuple[str, int], ...] = ()
    repeated: int = 0


def address(uri: str) -> str:
    """The URI, or the absolute local path, that a `Listing` has."""
    is_local = urlsplit(uri).scheme in ("", "file")
    return (str(local_path(uri)) if is_local else uri).rstrip("/")


def list_files(uri: str, s3: S3 | None = None) -> Listing:
    """List everything below ``uri``; a single file is listed below its parent.

    Raises:
        UserError: nothing is there, or it can't be listed.
    """
    is_local = urlsplit(uri).scheme in ("", "file")
    uri = address(uri)
    try:
        return _list_local(uri or "/") if is_local else _list_bucket(uri, s3)
    except OSError as error:
        place = f" at '{shown(error.filename)}'" if isinstance(error.filename, str) else ""
        reason = (error.strerror or str(error)).splitlines()[0]
        raise UserError(
            f"data.source: '{shown(uri)}' can't be listed ({reason}{place}); "
            "check the path and your permissions"
        ) from error


def _single(uri: str, size: int, modified: int, s3: S3 | None = None) -> Listing:
    parent, _, name = uri.rpartition("/")
    return Listing(parent, (FoundFile(name, size, modified),), (), s3)


def _missing(uri: str) -> UserError:
    return UserError(f"data.source: '{shown(uri)}' does not exist; check the path")


def _left_out(name: str, is_folder: bool) -> str:
    """A word for what is left out by its name, "" for what is not."""
    if is_folder and (name.startswith(".") or name.casefold() in SYSTEM_FOLDERS):
        return f"folder {shown(name)}"
    return "hidden file" if name.startswith(".") else ""


def _list_bucket(uri: str, s3: S3 | None) -> Listing:
    system, root = filesystem(uri, s3)
    found = system.get_file_info(root)
    if found.type == fs.FileType.NotFound:
        raise _missing(uri)
    if found.type == fs.FileType.File:
        return _single(uri, found.size, found.mtime_ns, s3)
    files, folders = [], []
    left_out = set()
    for entry in system.get_file_info(fs.FileSelector(root, recursive=True)):
        path = entry.path[len(root.rstrip("/")) + 1 :]
        parts = path.split("/")
        is_folder = entry.type == fs.FileType.Directory
        for depth, part in enumerate(parts, start=1):
            if word := _left_out(part, is_folder or depth < len(parts)):
                left_out.add((word, "/".join(parts[:depth])))
                break
        else:
            if is_folder:
                folders.append(path)
            else:
                files.append(FoundFile(path, entry.size, entry.mtime_ns))
    words = Counter(word for word, _ in left_out)
    return _sorted(uri, files, folders, words, s3=s3)


def _sorted(
    uri: str,
    files: list[FoundFile],
    folders: list[str],
    left_out: Counter[str],
    repeated: int = 0,
    s3: S3 | None = None,
) -> Listing:
    files.sort(key=lambda file: file.path)
    words = tuple(sorted(left_out.items()))
    return Listing(uri, tuple(files), tuple(sorted(folders)), s3, words, repeated)


def _list_local(uri: str) -> Listing:
    """Links are followed, but not in a circle; what is no file or folder is not opened."""
    try:
        found = os.stat(uri)
    except FileNotFoundError:
        raise _missing(uri) from None
    if not stat.S_ISDIR(found.st_mode):
        if kind := _KINDS.get(stat.S_IFMT(found.st_mode)):
            raise UserError(f"data.source: '{shown(uri)}' is {kind}; give a folder or a file")
        return _single(uri, found.st_size, found.st_mtime_ns)
    files: list[FoundFile] = []
    folders: list[str] = []
    left_out: Counter[str] = Counter()
    identities: list[int] = []
    is_linked = False
    # each with the folders that lead there, to know a circle by
    open_folders: list[tuple[str, _Folders]] = [("", ((found.st_dev, found.st_ino),))]
    while open_folders:
        folder, above = open_folders.pop()
        with os.scandir(os.path.join(uri, folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    is_folder = entry.is_dir(follow_symlinks=False)
                    left_out[_left_out(entry.name, is_folder)] += 1
                    continue
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    if entry.is_symlink():  # else it went away since
                        files.append(FoundFile(path, 0, 0, _dangling(entry)))
                    continue
                except OSError as error:
                    if entry.is_symlink() and error.errno == errno.ELOOP:
                        files.append(FoundFile(path, 0, 0, "a link in a circle"))
                        continue
                    raise
                identity = (found.st_dev, found.st_ino)
                if stat.S_ISDIR(found.st_mode):
                    if word := _left_out(entry.name, True):
                        left_out[word] += 1
                    elif identity in above:
                        left_out["link in a circle"] += 1
                    else:
                        folders.append(path)
                        open_folders.append((path, (*above, identity)))
                elif stat.S_ISREG(found.st_mode):
                    files.append(FoundFile(path, found.st_size, found.st_mtime_ns))
                    identities.append(hash(identity))
                    is_linked |= found.st_nlink > 1 or entry.is_symlink()
                else:
                    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
                    files.append(FoundFile(path, 0, 0, f"{kind}, not a file"))
    repeated = len(identities) - len(set(identities)) if is_linked else 0
    return _sorted(uri, files, folders, left_out, repeated)


def _dangling(entry: os.DirEntry[str]) -> str:
    return f"link to nothing ({shown(os.readlink(entry.path))}); fetch its content"
