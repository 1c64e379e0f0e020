"""Labels lie apart from pixels: a corrected label, another order, another noise embed nothing anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.pipeline import plan
from cwerm.stages import common
from cwerm.stages.extract import embedding
from cwerm.terminal import console
from stages.conftest import Fork, run_stages

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(console, "note", told.append)
    return told


def corrected(data: Path, folder: Path) -> Path:
    """The data with one label changed, the rows turned around, and one image that is new."""
    shutil.copytree(data, folder)
    table = pq.read_table(folder / "train.parquet")
    labels = table.column("label").to_pylist()
    labels[7] = (labels[7] + 1) % 10
    column = pa.array(labels, table.schema.field("label").type)
    table = table.set_column(table.schema.get_field_index("label"), "label", column)
    new = pq.read_table(folder / "test.parquet").slice(0, 1).cast(table.schema)
    whole = pa.concat_tables([table.take(pa.array(range(len(table))[::-1])), new])
    pq.write_table(whole, folder / "train.parquet", row_group_size=50)
    return folder


def test_only_what_is_new_is_embedded(
    fork: Fork, parted_data: Path, tmp_path: Path, notes: list[str]
) -> None:
    first = fork("extract")
    first.run("extract")
    data = corrected(parted_data, tmp_path / "corrected")
    job = first.job.model_copy(
        update={"data": first.job.data.model_copy(update={"source": str(data)})}
    )
    again = run_stages(job, "extract")
    assert "400 of 401 images were embedded before" in notes
    mine, former = (
        common.column(c.table("extract", "features"), "feature") for c in (again, first)
    )
    assert np.array_equal(mine[:400], former[::-1])
    fresh = run_stages(job.model_copy(update={"storage": str(tmp_path / "fresh")}), "extract")
    expected = common.column(fresh.table("extract", "features"), "feature")
    np.testing.assert_allclose(mine.astype(np.float32), expected.astype(np.float32), atol=5e-3)
    assert "".join(notes).count("embedded before") == 1, "another store knows nothing"


def test_where_all_is_known_no_backbone_is_loaded(
    fork: Fork, parted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fork("extract")
    first.run("extract")
    data = tmp_path / "turned"
    shutil.copytree(parted_data, data)
    table = pq.read_table(data / "train.parquet")
    turned = table.take(pa.array(range(len(table))[::-1]))
    pq.write_table(turned, data / "train.parquet", row_group_size=50)

    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is new")

    monkeypatch.setattr(embedding.backbones, "load_backbone", fails)
    section = first.job.data.model_copy(update={"source": str(data)})
    again = run_stages(first.job.model_copy(update={"data": section}), "extract")
    mine, former = (
        common.column(c.table("extract", "features"), "feature") for c in (again, first)
    )
    assert np.array_equal(mine, former[::-1])
    assert again.table("extract", "features").column("id").to_pylist() == list(range(400))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no json"),
        lambda path: path.write_bytes(b'{"made": [{"extract": "../../x", "ingest": "1"}]}'),
        lambda path: path.write_bytes(b'{"made": [{"extract": "gone", "ingest": "gone"}]}'),
        lambda path: path.write_bytes(b'{"made": 5}'),
        lambda path: path.write_bytes(b"[]"),
    ],
)
def test_what_is_remembered_is_a_hint(fork: Fork, spoil: Any) -> None:
    from cwerm.stages.extract.known import find_known, remember

    mine = fork("select")
    images, settings = mine.made["ingest"], mine.plan["extract"].settings
    remember(mine.store, settings, mine.made["extract"], images)
    assert find_known(mine.store, settings, images).counts("features", 0) == (50, 50)
    (path,) = Path(mine.job.storage, "known-features").iterdir()
    spoil(path)
    assert find_known(mine.store, settings, images).counts("features", 0) == (50, 0)


def test_other_weights_know_nothing_of_each_other(fork: Fork) -> None:
    from cwerm.stages.extract.known import find_known, remember

    mine = fork("select")
    images, settings = mine.made["ingest"], mine.plan["extract"].settings
    remember(mine.store, settings, mine.made["extract"], images)
    for changes in ({"weights": "random"}, {"image_size": 64}, {"dtype": "float32"}):
        other = settings.model_copy(update=changes)
        assert find_known(mine.store, other, images).counts("features", 0) == (50, 0)


def test_noise_and_seed_change_no_features(fork: Fork) -> None:
    mine = fork("select")
    for changes in ({"data": {"noise": "symmetric"}}, {"seed": 7}):
        tree = mine.job.model_dump()
        for key, value in changes.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
        steps = plan(type(mine.job).model_validate(tree))
        assert steps["extract"].key == mine.plan["extract"].key
        assert steps["select"].key != mine.plan["select"].key
