"""Ingest: ids, classes, splits, limits and rejects, against the source read by other means."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cwerm.algorithms.noise.corrupt import corrupt_labels, long_tail
from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.pipeline import plan
from cwerm.runs.preflight import check_rejected
from cwerm.stages import common
from cwerm.stages.ingest import LABELS
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore
from stages.conftest import Chain

pytestmark = pytest.mark.usefixtures("ray_session")
MakeJob = Callable[..., Job]


def run(job: Job) -> tuple[ArtifactStore, Artifact]:
    steps = plan(job)
    made = steps.execute("ingest").artifact
    check_rejected(steps)
    return steps.store, made


def labels_in(store: ArtifactStore, made: Artifact, table: str = "given_labels") -> np.ndarray:
    return common.column(store.read(made, table), "label")


def write_folder(root: Path, per_class: dict[str, int], split: str = "") -> None:
    """Images 12 x 10 whose bytes depend on class and number."""
    for code, (name, count) in enumerate(per_class.items()):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.random.default_rng([code, number]).integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def test_parquet_keeps_order_labels_and_bytes(chain: Chain, parted_data: Path) -> None:
    names = chain.made["ingest"].info["class_names"]
    for table, split in (("images", "train"), ("test_images", "test")):
        found = chain.table("ingest", table)
        source = pq.read_table(parted_data / f"{split}.parquet")
        assert found.column("id").to_pylist() == list(range(source.num_rows))
        given = chain.table("ingest", LABELS[table])
        assert given.column("id").to_pylist() == found.column("id").to_pylist()
        assert given.column("label").to_pylist() == source.column("label").to_pylist()
        pictures = source.column("image").to_pylist()
        expected = [p["bytes"] if isinstance(p, dict) else p for p in pictures]
        assert found.column("image").to_pylist() == expected
    assert len(names) == 10
    assert [part.rows for part in chain.made["ingest"].tables["images"]] == [50] * 8
    labels = chain.table("label", "labels").select(["id", "label"])
    assert labels.equals(chain.table("ingest", "given_labels"))
    digests = chain.table("ingest", "digests").column("digest").to_pylist()
    pictures = chain.table("ingest", "images").column("image").to_pylist()
    assert digests == [sha256(sha256(p).digest()[:16]).digest()[:16] for p in pictures]


def test_every_table_of_every_stage_has_its_schema(chain: Chain) -> None:
    for artifact in chain.made.values():
        for name, parts in artifact.tables.items():
            for index in range(len(parts)):
                schema.check(name, chain.store.read_part(artifact, name, index))


def test_a_drawn_test_split(tmp_path: Path, make_job: MakeJob) -> None:
    counts = {"cat": 30, "dog": 20, "eel": 4}
    write_folder(tmp_path / "data", counts)
    settings = {"data__source": str(tmp_path / "data"), "data__test_fraction": 0.25}
    store, made = run(make_job(**settings, data__rows_per_part=7))
    train, test = (store.read(made, name) for name in ("images", "test_images"))
    assert made.info["class_names"] == ["cat", "dog", "eel"]
    assert np.bincount(labels_in(store, made, "given_test_labels")).tolist() == [8, 5, 1]
    paths = [set(table.column("path").to_pylist()) for table in (train, test)]
    everything = {str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("*.png")}
    assert not paths[0] & paths[1]
    assert paths[0] | paths[1] == everything
    for table, labels in ((train, "given_labels"), (test, "given_test_labels")):
        assert table.column("id").to_pylist() == list(range(table.num_rows))
        for row, label in zip(table.to_pylist(), labels_in(store, made, labels), strict=True):
            assert row["path"].startswith(made.info["class_names"][label])
            assert (tmp_path / "data" / row["path"]).read_bytes() == row["image"]

    other = make_job(
        data__rows_per_part=1000, storage=str(tmp_path / "2"), resources__workers=1, seed=7
    )
    store_2, made_2 = run(other)
    assert store_2.read(made_2, "test_images").equals(test), "neither parts nor seed move it"
    store_3, made_3 = run(make_job(data__split_seed=1, storage=str(tmp_path / "3")))
    assert not store_3.read(made_3, "test_images").equals(test)


@pytest.mark.parametrize("layout", ["folder", "one row group"])
def test_large_images_make_more_parts_of_the_same_rows(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    write_folder(tmp_path / "data", {"cat": 30, "dog": 20})
    if layout == "one row group":
        files = sorted((tmp_path / "data").rglob("*.png"))
        columns = {
            "image": [f.read_bytes() for f in files],
            "label": [f.parent.name for f in files],
        }
        shutil.rmtree(tmp_path / "data")
        (tmp_path / "data").mkdir()
        pq.write_table(pa.table(columns), tmp_path / "data/all.parquet")
    job = make_job(data__source=str(tmp_path / "data"), data__rows_per_part=20)
    store, usual = run(job)
    monkeypatch.setattr("cwerm.data.source.PART_BYTES", 2_000)  # of 5 images or fewer
    other, small = run(job.model_copy(update={"storage": str(tmp_path / "other")}))
    assert len(usual.tables["images"]) == 3
    assert len(small.tables["images"]) >= 10
    for table in ("images", "test_images", "given_labels", "digests"):
        assert other.read(small, table).equals(store.read(usual, table))
    for index in range(len(small.tables["images"])):
        part = other.read_part(small, "images", index)
        assert sum(map(len, part.column("image").to_pylist())) <= 2_000


def test_a_class_too_small_for_a_test_split(tmp_path: Path, make_job: MakeJob) -> None:
    write_folder(tmp_path / "data", {"cat": 5, "dog": 1})
    with pytest.raises(UserError, match=r"data\.test_fraction: class .* too few"):
        run(make_job(data__source=str(tmp_path / "data")))


def test_limit_draws_a_balanced_part(make_job: MakeJob, chain: Chain) -> None:
    store, made = run(make_job(data__limit=50))
    rows = store.read(made, "images")
    assert np.bincount(labels_in(store, made)).tolist() == [5] * 10
    assert rows.column("id").to_pylist() == list(range(50))
    assert made.rows("test_images") == 100
    everything = set(chain.table("ingest", "images").column("image").to_pylist())
    assert len(set(rows.column("image").to_pylist()) & everything) == 50


def test_a_long_tail_with_noise(tmp_path: Path, make_job: MakeJob) -> None:
    counts = {"cat": 40, "dog": 40, "eel": 44}
    for name in ("data", "trusted"):
        write_folder(tmp_path / name, counts)
    sources = {"data__source": str(tmp_path / "data"), "data__trusted": str(tmp_path / "trusted")}
    store, clean = run(make_job(**sources, data__rows_per_part=7))
    noise = {"data__noise": "symmetric", "data__noise_rate": 0.5, "data__imbalance": 3.0}
    job = make_job(**noise)
    _, tail = run(job)
    noisy = plan(job).execute("label").artifact
    everything, found = (store.read(made, "images") for made in (clean, tail))

    true = labels_in(store, clean)
    kept = long_tail(true, 3.0, seed=0)
    assert np.bincount(true[kept]).tolist() == [36, 20, 12]
    expected = corrupt_labels(true[kept], "symmetric", 0.5, 3, seed=0)
    assert found.column("id").to_pylist() == list(range(68))
    assert found.column("path").to_pylist() == everything.column("path").take(kept).to_pylist()
    assert np.array_equal(common.labels_of(store, noisy), expected)
    assert np.array_equal(common.clean_labels_of(store, noisy), true[kept])
    assert np.array_equal(labels_in(store, tail), true[kept])
    for table in ("test_images", "trusted_images", "given_test_labels", "trusted_labels"):
        assert store.read(tail, table).equals(store.read(clean, table))

    other = make_job(data__rows_per_part=1000, resources__workers=1)
    assert store.read(run(other)[1], "images").equals(found), "neither parts nor workers move it"


def test_images_do_not_know_of_noise_and_labels_do(make_job: MakeJob) -> None:
    def keys(**changes: Any) -> tuple[str, str, str]:
        steps = plan(make_job(**changes))
        return steps["ingest"].key, steps["extract"].key, steps["label"].key

    clean = keys()
    assert keys(data__noise_rate=0.2, seed=3) == clean, "a rate without noise means nothing"
    noisy = [keys(data__noise="flip"), keys(data__noise_rate=0.3), keys(data__noise="flip2")]
    noisy.append(keys(data__split_seed=0, seed=9))
    assert {images for images, _, _ in noisy} == {clean[0]}
    assert {features for _, features, _ in noisy} == {clean[1]}
    assert len({clean[2], *(labels for _, _, labels in noisy)}) == 4
    tail = keys(data__noise="none", data__imbalance=2.0)
    assert not set(tail) & set(clean)
    assert keys(data__imbalance=1.0) == clean


def test_trusted_and_test_sources_share_the_classes(tmp_path: Path, make_job: MakeJob) -> None:
    write_folder(tmp_path / "train", {"a": 6, "b": 6})
    write_folder(tmp_path / "trusted", {"a": 2, "b": 3})
    write_folder(tmp_path / "test", {"b": 4})
    sources = {f"data__{role}": str(tmp_path / role) for role in ("trusted", "test")}
    store, made = run(make_job(data__source=str(tmp_path / "train"), **sources))
    assert made.rows("images") == 12
    assert sorted(labels_in(store, made, "trusted_labels")) == [0, 0, 1, 1, 1]
    assert labels_in(store, made, "given_test_labels").tolist() == [1] * 4


def test_a_class_unknown_to_training(tmp_path: Path, make_job: MakeJob) -> None:
    write_folder(tmp_path / "train", {"a": 6, "b": 6})
    write_folder(tmp_path / "test", {"c": 2})
    job = make_job(data__source=str(tmp_path / "train"), data__test=str(tmp_path / "test"))
    with pytest.raises(
        UserError, match=r"data\.test: .*class 'c' is not among the training classes"
    ):
        run(job)


def test_one_class_only(tmp_path: Path, make_job: MakeJob) -> None:
    write_folder(tmp_path / "data", {"cat": 5})
    with pytest.raises(UserError, match="are of class 'cat'; a classifier needs at least two"):
        run(make_job(data__source=str(tmp_path / "data")))
