"""Small data sets of images, made by Hugging Face's own library."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from object_store import s3_prefix  # noqa: F401
from PIL import Image

FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=["cat", "dog"]),
    "score": datasets.Value("float32"),
    "taken": datasets.Value("date32"),
    "tags": datasets.List(datasets.Value("string")),
}
DAY = datetime.date(2020, 2, 29)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (5, 4, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def rows(first: int, count: int) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in numbers],
        "label": [i % 2 for i in numbers],
        "score": [i / 2 for i in numbers],
        "taken": [DAY for _ in numbers],
        "tags": [["x"] for _ in numbers],
    }


def made(first: int = 0, count: int = 8, **changed: Any) -> datasets.Dataset:
    features = datasets.Features(FEATURES | changed)
    return datasets.Dataset.from_dict(rows(first, count), features=features)


def save(what: Any, place: Path, **how: Any) -> Path:
    what.save_to_disk(str(place), **how)
    return place


datasets.disable_progress_bars()
