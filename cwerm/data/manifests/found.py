"""Whether a source is a manifest."""

from __future__ import annotations

import pyarrow as pa

from cwerm.data.files.listing import Listing
from cwerm.data.manifests.rows import PATHS, SUFFIXES
from cwerm.data.names import suffix
from cwerm.data.parquet.names import has_parquet_name
from cwerm.store.plain_types import open_plain
from cwerm.store.storage import filesystem


def is_manifest(listing: Listing, uri: str, image: str) -> bool:
    """Whether it is a single table of paths: by its name, or Parquet with a column of paths, not images."""
    if listing.uri == uri.rstrip("/"):
        return False
    (file,) = listing.files
    if suffix(file.path) in SUFFIXES:
        return True
    if not has_parquet_name(file.path):
        return False
    system, root = filesystem(listing.uri, listing.s3)
    try:
        with system.open_input_file(f"{root}/{file.path}") as handle:
            columns = {
                field.name: field.type for field in open_plain(handle, file.path)[0].schema_arrow
            }
    except (pa.ArrowException, OSError, ValueError):
        return False  # what is wrong with it is told where it is read
    if any(pa.types.is_binary(kind) or pa.types.is_nested(kind) for kind in columns.values()):
        return False  # these may be images, in a column of another name
    if image in columns:
        return pa.types.is_string(columns[image]) or pa.types.is_large_string(columns[image])
    return any(name in columns for name in PATHS)
