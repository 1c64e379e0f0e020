"""The files of a folder that go to a cluster with a job, and those that stay: secrets, stores, caches."""

from __future__ import annotations

import errno
import os
import re
import stat
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from cwerm.errors import UserError, shown

MOST_FILES = 200_000
SMALL = 64 * 2**10  # bytes; no key is larger
NAMED = 4  # examples of each kind that are named
_SECRET_NAME = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|_?netrc|kubeconfig|rootkey\.csv|.*accesskeys\.csv|"
    r"credentials?(\.(json|csv|ini|ya?ml|toml|txt))?|secrets?\.(json|ini|ya?ml|toml|txt|env)|"
    r"client_secret.*\.json|service[-_]?account.*\.json|.*\.(pem|key|p12|pfx|ppk|jks|kdbx|env)",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    rb"\A\s*-----BEGIN [A-Z ]*PRIVATE KEY|\APuTTY-User-Key-File|"
    rb"\"private_key\"\s*:\s*\"-----BEGIN|"
    rb"^\s*(export\s+)?aws_secret_access_key\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}['\"]?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_SECRET_FOLDERS = {".ssh", ".aws", ".azure", ".docker", ".gnupg", ".kube", "gcloud"}


@dataclass
class Contents:
    """What a folder holds: files by their path in it, with their size, and what is left out and why."""

    folder: Path
    files: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    linked: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def told(self) -> str:
        """One line of what is shipped and what is not."""
        files = "file" if len(self.files) == 1 else "files"
        line = f"ships {len(self.files):,} {files}, {self.size / 2**20:.1f} MiB, of '{self.folder}'"
        if self.linked:
            line += f"; with what links lead to elsewhere: {_examples(self.linked)}"
        if self.left_out:
            kinds = [f"{kind} {_examples(names)}" for kind, names in self.left_out.items()]
            line += f"; left out: {', '.join(kinds)}"
        return line


def _examples(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"({', '.join(shown(name) for name in sorted(names)[:NAMED])}{more})"


def look(folder: Path, store: Path | None = None) -> Contents:
    """What is below ``folder``, without reading it; links are followed, but not in a circle.

    Args:
        folder: the folder to ship.
        store: the job's storage, which is left out.

    Raises:
        UserError: something can't be listed, a name is no UTF-8, or there are too many files.
    """
    found = Contents(folder)
    if _is_store(folder, store):
        raise UserError(
            f"--working-dir: '{folder}' is a store of cwerm; give the folder with the job's files"
        )
    top = folder.stat()
    _walk(found, "", ((top.st_dev, top.st_ino),), store)
    return found


def files_of(folder: Path) -> list[Path]:
    """The files below ``folder`` that may be shipped."""
    return [folder / path for path in look(folder).files]


def _walk(
    found: Contents, below: str, above: tuple[tuple[int, int], ...], store: Path | None
) -> None:
    try:
        with os.scandir(found.folder / below) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        found.left_out["gone meanwhile"].append(below)
        return
    except OSError as error:
        raise _unreadable(below or str(found.folder), error) from None
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            status = entry.stat()
        except FileNotFoundError:
            kind = "links to nothing" if entry.is_symlink() else "gone meanwhile"
            found.left_out[kind].append(path)
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                found.left_out["links in a circle"].append(path)
                continue
            raise _unreadable(path, error) from None
        identity = (status.st_dev, status.st_ino)
        is_folder = stat.S_ISDIR(status.st_mode)
        if kind := _why_not(entry, is_folder, store):
            found.left_out[kind].append(path)
        elif is_folder and identity in above:
            found.left_out["links in a circle"].append(path)
        elif not is_folder and not stat.S_ISREG(status.st_mode):
            found.left_out["no files"].append(path)
        else:
            if entry.is_symlink() and _leads_away(entry.path, found.folder):
                found.linked.append(path)
            if is_folder:
                _walk(found, path, (*above, identity), store)
            else:
                _add(found, path, status.st_size)


def _add(found: Contents, path: str, size: int) -> None:
    if shown(path) != path and any("\udc80" <= letter <= "\udcff" for letter in path):
        raise UserError(
            f"--working-dir: the name '{shown(path)}' is not UTF-8; rename the file or move it away"
        )
    found.files[path] = size
    if len(found.files) > MOST_FILES:
        raise UserError(
            f"--working-dir: '{found.folder}' holds more than {MOST_FILES:,} files; put the data on "
            "s3:// or a file system that all hosts share"
        )


def _why_not(entry: os.DirEntry[str], is_folder: bool, store: Path | None) -> str:
    """The kind of what is not shipped, "" for what is."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink() and _SECRET_FOLDERS & {*Path(os.path.realpath(entry.path)).parts}:
        return "secrets"
    if not is_folder:
        real = os.path.basename(os.path.realpath(entry.path)) if entry.is_symlink() else entry.name
        is_secret = _SECRET_NAME.fullmatch(entry.name) or _SECRET_NAME.fullmatch(real)
        return "secrets" if is_secret else ""
    if entry.name == "__pycache__" or os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
        return "caches"
    return "stores" if _is_store(Path(entry.path), store) else ""


def _is_store(folder: Path, store: Path | None) -> bool:
    if store is not None and os.path.realpath(folder) == os.path.realpath(store):
        return True
    inside = (("runs",), ("sweeps",), ("artifacts", "ingest"), ("artifacts", "extract"))
    # of os.path, which says no of what may not be looked into
    return os.path.isdir(folder / "artifacts") and any(
        os.path.isdir(folder.joinpath(*names)) for names in inside
    )


def _leads_away(path: str, folder: Path) -> bool:
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def write(found: Contents, package: zipfile.ZipFile, but: set[str]) -> None:
    """Write the files to an archive, and keep in ``found`` what was shipped in the end.

    Args:
        found: what `look` found.
        package: the archive.
        but: names that are taken.

    Raises:
        UserError: a file can't be read.
    """
    for path in list(found.files):
        kind = "" if path not in but else "names that cwerm needs"
        try:
            kind = kind or _write(found, path, package)
        except FileNotFoundError:
            kind = "gone meanwhile"
        except OSError as error:
            raise _unreadable(path, error) from None
        if kind:
            del found.files[path]
            found.left_out[kind].append(path)


def _write(found: Contents, path: str, package: zipfile.ZipFile) -> str:
    place = found.folder / path
    with place.open("rb") as file:
        before = os.fstat(file.fileno())
        head = file.read(SMALL + 1)
        if len(head) <= SMALL and _SECRET_TEXT.search(head):
            return "secrets"
        info = zipfile.ZipInfo.from_file(place, path, strict_timestamps=False)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.file_size = before.st_size
        with package.open(info, "w", force_zip64=before.st_size > 2**30) as target:
            # no more than there was: a file that something writes to would never end
            left = before.st_size
            while head and left > 0:
                target.write(head[:left])
                left -= len(head)
                head = file.read(2**20)
        after = os.fstat(file.fileno())
    found.files[path] = before.st_size - max(0, left)
    if left > 0 or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(
            f"--working-dir: '{shown(path)}' changed while it was packed; run again when nothing "
            "writes to it, or move it away"
        )
    return ""


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(
        f"--working-dir: '{shown(path)}' can't be read ({error.strerror}); correct its permissions, or "
        "move it away"
    )
