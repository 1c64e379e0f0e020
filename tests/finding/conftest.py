"""Images with wrong labels, and what is found of them, once for all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cwerm.finding.find import Found, find
from cwerm.terminal import console
from finding.clothes import CLASSES, NAMES, WRONG


@pytest.fixture(scope="session")
def folder(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of six classes, a quarter of them in another one's folder, and a file that is no image."""
    root = tmp_path_factory.mktemp("find") / "clothes"
    table = pq.read_table(small_data / "train.parquet").to_pylist()
    random = np.random.default_rng(0)
    moved = np.zeros(240, np.int64)
    moved[random.choice(240, WRONG, replace=False)] = random.integers(1, 6, WRONG)
    rows = [row for row in table if row["label"] in CLASSES]
    for number, (row, steps) in enumerate(zip(rows, moved.tolist(), strict=True)):
        true = CLASSES.index(row["label"])
        given = (true + steps) % 6
        place = root / NAMES[given]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{true}-{number:03d}.webp").write_bytes(row["image"]["bytes"])
    (root / NAMES[0] / "broken.png").write_bytes(b"not an image")
    return root


@pytest.fixture(scope="session")
def found(ray_session: None, folder: Path) -> tuple[Found, list[str]]:
    said: list[str] = []
    options = {"storage": str(folder.parent / "store")}
    with console.told_to(said.append):
        return find(str(folder), folder.parent / "out", options=options), said
