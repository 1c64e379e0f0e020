"""Sources of labelled images: folders, Parquet, public data sets and the package's sample."""

from __future__ import annotations

from cwerm.data.catalog import KNOWN_NAMES, open_source
from cwerm.data.images import decode
from cwerm.data.labels import class_mapping
from cwerm.data.source import Chunk, Sample, Source

__all__ = [
    "KNOWN_NAMES",
    "Chunk",
    "Sample",
    "Source",
    "class_mapping",
    "decode",
    "open_source",
]
