"""Parquet files for the tests: small images and labels, with or without the names of classes."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cwerm.data import Sample, Source


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), number % 256, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put(
    path: Path, labels: Any, *, images: Any = None, names: list[str] | None = None, **options: Any
) -> Path:
    """A file with these labels, and images that tell the row; ``names`` as Hugging Face writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [png(row) for row in range(len(labels))] if images is None else images
    table = pa.table({"image": images, "label": labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    pq.write_table(table, path, **options)
    return path


def read(source: Source, split: str = "train", rows: int = 1024) -> list[Sample]:
    """All samples, as a worker reads them."""
    worker = pickle.loads(pickle.dumps(source))
    return [sample for chunk in source.chunks(split, rows) for sample in worker.read(chunk)]


def labels(source: Source, split: str = "train") -> list[str | int]:
    return [sample.label for sample in read(source, split)]
