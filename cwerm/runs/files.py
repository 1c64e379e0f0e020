"""Files that a user asked for, on this machine."""

from __future__ import annotations

from pathlib import Path

from cwerm.errors import UserError


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
