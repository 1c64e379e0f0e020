"""What names of files and folders tell: Parquet or not, the split, the label."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from cwerm.data.files.file_source import split_in_name
from cwerm.errors import UserError, shown

_SUFFIX = re.compile(
    r"\.(parquet|parq|pq)(\.(gz|gzip|snappy|sz|zst|zstd|lz4|lzo|br|brotli|bz2|uncompressed))?$",
    re.I,
)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def has_parquet_name(path: str) -> bool:
    """Whether the file is Parquet by its name, and not of those that writers leave beside the data."""
    return bool(_SUFFIX.search(path)) and not is_left_by_writers(path)


def is_left_by_writers(path: str) -> bool:
    """``_SUCCESS``, ``_metadata`` or what lies in ``_temporary/``, as Spark and others leave them."""
    return any(part.startswith("_") and "=" not in part for part in path.split("/"))


def value_in_path(path: str, column: str) -> str | None:
    """The column's value as a folder ``column=value`` above the file has it; None without."""
    for part in path.split("/")[:-1]:
        key, sign, value = part.partition("=")
        if sign and unquote(key) == column:
            return "" if value == _NO_VALUE else unquote(value)
    return None


def split_of(path: str, label_column: str) -> str | None:
    """The split that the nearest folder tells, or else the file's name.

    Raises:
        UserError: a name tells two splits.
    """
    *folders, name = path.split("/")
    name = _SUFFIX.sub("", name)
    for part in (*reversed(folders), PurePosixPath(name).name):
        key, sign, _ = part.partition("=")
        if sign and unquote(key) == label_column:
            continue  # a class may be called "test"
        try:
            found = split_in_name(part)
        except ValueError as error:
            raise UserError(f"data.source: '{shown(path)}': {error}; rename it") from None
        if found:
            return found.split
    return None
