"""Files that a user asked for, on this machine."""

from __future__ import annotations

from pathlib import Path

from cwerm.errors import UserError


def make_folder(to: Path) -> None:
    """A folder for what a command writes, and those above it.

    Raises:
        UserError: it can't be made.
    """
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--to: '{to}' can't be made ({error.strerror}); choose another place"
        ) from None


def write_file(target: Path, data: bytes) -> None:
    """All of it or nothing: an earlier file of that name is replaced at the end.

    Raises:
        UserError: it can't be written.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    except OSError as error:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
        raise UserError(
            f"--to: '{target}' can't be written ({error.strerror}); choose another place"
        ) from None
