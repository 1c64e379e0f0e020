"""Images, labels and sizes that no run can use: found early, nothing changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import LITE0, Answer, Finished, write_job
from PIL import Image

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet20

Cwerm = Callable[..., Answer]
Refused = Callable[..., None]


def png(size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "navy").save(buffer, format="PNG")
    return buffer.getvalue()


def parquet(folder: Path, labels: list[str], images: list[bytes] | None = None) -> Path:
    images = images or [png()] * len(labels)
    table = {"image": pa.array(images, pa.binary()), "label": pa.array(labels, pa.string())}
    path = folder / "data.parquet"
    pq.write_table(pa.table(table), path)
    return path


def refuse_unstarted(cwerm: Cwerm, folder: Path, tree: dict[str, Any], *words: str) -> None:
    """The job is refused before anything lies in its storage."""
    store = folder / "store"
    job = write_job(folder, {"storage": str(store), "features": {"weights": LITE0}, **tree})
    cwerm("run", job).refused(*words)
    assert not [path for path in store.rglob("*") if path.is_file()]


# --- the data --------------------------------------------------------------------------------------


def test_empty_folder(cwerm: Cwerm, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    tree = {"data": {"source": f"{tmp_path}/images"}}
    refuse_unstarted(cwerm, tmp_path, tree, "data.source", "no images", str(tmp_path))


def test_class_folder_without_images(cwerm: Cwerm, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.png").write_bytes(png())
    tree = {"data": {"source": f"{tmp_path}/images"}}
    refuse_unstarted(cwerm, tmp_path, tree, "data.source", "images/dog", "remove it")


def test_parquet_without_rows(cwerm: Cwerm, tmp_path: Path) -> None:
    tree = {"data": {"source": str(parquet(tmp_path, []))}}
    refuse_unstarted(cwerm, tmp_path, tree, "data.source", "no rows")


def test_parquet_without_the_column(cwerm: Cwerm, tmp_path: Path) -> None:
    data = {"source": str(parquet(tmp_path, ["a", "b"])), "label_column": "fine"}
    refuse_unstarted(cwerm, tmp_path, {"data": data}, "data.label_column", "'fine'", "image, label")


def test_broken_parquet(cwerm: Cwerm, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    tree = {"data": {"source": f"{tmp_path}/x.parquet"}}
    refuse_unstarted(cwerm, tmp_path, tree, "data.source", "x.parquet", "not a readable Parquet")


@pytest.mark.parametrize(
    ("labels", "broken", "words"),
    [
        (["cat"] * 20, 0, ["data.source", "'cat'", "at least two"]),
        (["cat"] * 10 + ["dog"], 0, ["data.test_fraction", "add images"]),
        (["cat"] * 10 + ["dog"] * 10, 3, ["data.max_rejects", "3 of 20", "not an image"]),
        (["cat"] * 10 + ["dog"] * 10, 20, ["data.max_rejects", "20 of 20"]),
    ],
    ids=["one class", "one image", "rejects", "all rejects"],
)
def test_unusable_data(
    cwerm: Cwerm,
    ray_session: None,
    tmp_path: Path,
    labels: list[str],
    broken: int,
    words: list[str],
) -> None:
    images = [b"not an image"] * broken + [png()] * (len(labels) - broken)
    tree = {"data": {"source": str(parquet(tmp_path, labels, images))}}
    refuse_unstarted(cwerm, tmp_path, tree, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["coreset.ratio=0.001"], ["coreset.ratio", "no sample", "at least"]),
        (["coreset.ratio=0.02"], ["coreset.ratio", "8 samples for 10 classes", "at least"]),
        (["coreset.ratio=0.99", "coreset.scope=global"], ["coreset.ratio", "396", "380"]),
        (["coreset.meta_per_class=40"], ["coreset.meta_per_class", "40", "ask for fewer"]),
        (["coreset.meta_per_class=40", "method=erm"], ["coreset.meta_per_class", "ask for fewer"]),
        (["broadcast.neighbors=41"], ["broadcast.neighbors", "coreset of 40", "ask for fewer"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_sizes_that_the_data_do_not_allow(
    refused: Refused, changes: list[str], words: list[str]
) -> None:
    refused(changes, *words)


# --- memory and images' size -----------------------------------------------------------------------

HUGE = 10**8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([f"train.batch_size={HUGE}"], ["train.batch_size"]),
        (
            [f"reweight.batch_size={HUGE}", "reweight.input=images", "features.image_size=33"],
            ["reweight.batch_size"],
        ),
        ([f"features.batch_size={HUGE}", "features.image_size=33"], ["features.batch_size"]),
        ([f"train.batch_size={HUGE}", "features.image_size=33"], ["train.batch_size"]),
    ],
    ids=["train", "reweight", "features", "train before extract"],
)
def test_batch_that_no_memory_holds(
    refused: Refused,
    finished: Finished,
    ray_session: None,
    changes: list[str],
    words: list[str],
) -> None:
    made = set(finished.store.glob("artifacts/*/*/manifest.json"))
    refused(changes, *words, str(HUGE), "GiB are free", "try ")
    assert set(finished.store.glob("artifacts/*/*/manifest.json")) == made


def test_model_that_can_not_take_the_images(refused: Refused, ray_session: None) -> None:
    refused(["train.model=inception_v3"], "train.image_size", "inception_v3", "28 pixels")
