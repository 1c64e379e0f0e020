"""`train.input: features`: a head on the stored features, tested on those of the test images."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load

from cwerm.errors import UserError
from cwerm.pipeline import plan
from cwerm.predicting.predict import predict
from cwerm.runs.folder import RunFolder
from cwerm.stages import common
from cwerm.stages.classifiers import check_head
from cwerm.stages.extract.known import find_known, remember
from cwerm.terminal import console
from stages.conftest import Chain, Fork

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def head(fork: Fork) -> Chain:
    """Plain training of a head; the features of the training images are there."""
    return fork("train", method="erm", train__input="features", train__epochs=4)


def test_a_head_is_tested_on_the_test_images_and_predicts_new_ones(
    head: Chain, small_data: Path, tmp_path: Path
) -> None:
    results = {name: head.plan.execute(name) for name in head.plan.names}
    assert [*results] == ["ingest", "extract", "embed_val", "embed_test", "train"]
    assert results["extract"].reused
    assert [name for name in results if results[name].artifact.is_empty] == ["embed_val"]
    made = head.made["train"]
    tensors = load(head.store.read_file(made, "model.safetensors"))
    stored = common.column(head.table("extract", "features"), "feature")
    features = stored[head.training_set()[0]].astype(np.float64)
    np.testing.assert_allclose(tensors["standard.mean"], features.mean(axis=0), rtol=1e-5)
    deviation = np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    np.testing.assert_allclose(tensors["standard.std"], deviation, rtol=1e-4)
    tested = common.column(head.table("embed_test", "test_features"), "feature")
    inputs = (tested.astype(np.float32) - tensors["standard.mean"]) / tensors["standard.std"]
    predicted = (inputs @ tensors["weight"].T + tensors["bias"]).argmax(axis=1)
    labels = common.column(head.table("ingest", "given_test_labels"), "label")
    assert made.info["test_accuracy"] == pytest.approx((predicted == labels).mean(), abs=0.011)
    assert made.info["test_accuracy"] > 0.4
    said = head.table("train", "test_predictions")
    assert np.array_equal(said.column("id").to_numpy(), np.arange(100))
    assert np.mean(said.column("predicted").to_numpy() == predicted) >= 0.99

    run = RunFolder(head.plan).finish(results).folder
    for number, row in enumerate(pq.read_table(small_data / "test.parquet").to_pylist()):
        (tmp_path / f"{number:03d}.webp").write_bytes(row["image"]["bytes"])
    predict(run, str(tmp_path), tmp_path / "p.csv")
    rows = [*csv.DictReader((tmp_path / "p.csv").read_text().splitlines())]
    names = head.made["ingest"].info["class_names"]
    found = [names.index(row["label"]) for row in rows]
    # in batches of other sizes a feature may round to a neighbour, and tip a near tie
    assert np.mean(np.array(found) == said.column("predicted").to_numpy()) >= 0.99
    with pytest.raises(UserError, match=r"features\.weights: 'random' is another file on host"):
        predict(run, str(tmp_path), tmp_path / "p.csv", overrides=["features.weights=random"])


def test_test_images_are_embedded_apart_from_training_images(head: Chain, chain: Chain) -> None:
    assert "embed_test" not in plan(chain.job).names
    assert head.plan["extract"].key == chain.plan["extract"].key


def test_a_test_image_that_was_embedded_in_training_is_known(
    fork: Fork, parted_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fork("train")
    remember(
        first.store, first.plan["extract"].settings, first.made["extract"], first.made["ingest"]
    )
    turned = tmp_path / "turned"
    turned.mkdir()
    shutil.copy(parted_data / "test.parquet", turned / "train.parquet")
    shutil.copy(parted_data / "train.parquet", turned / "test.parquet")
    told: list[str] = []
    monkeypatch.setattr(console, "note", told.append)
    tree = first.job.model_copy(
        update={"data": first.job.data.model_copy(update={"source": str(turned)}), "method": "erm"}
    )
    again = Chain(plan(tree, "embed_test"))
    for name in again.plan.names:
        again.run(name)
    assert "400 of 400 images were embedded before" in told
    stored = common.column(first.table("extract", "features"), "feature")
    found = common.column(again.table("embed_test", "test_features"), "feature")
    assert np.array_equal(found, stored)
    known = find_known(
        again.store, again.plan["embed_test"].settings, again.made["ingest"], ["test_features"]
    )
    assert known.counts("test_features", 0) == (50, 50)


def test_a_head_on_a_coreset_with_weights_needs_what_it_reads(fork: Fork) -> None:
    of = {"train__input": "features"}
    assert fork("train", method="c-random-erm", **of).plan.names == (
        "ingest", "extract", "embed_val", "embed_test", "select", "train",
    )  # fmt: skip
    assert fork("train", **of).plan.names == (
        "ingest", "extract", "embed_val", "embed_test", "select", "reweight", "broadcast", "train",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train__model": "resnet20"}, r"train\.model: 'resnet20' is no head on features; with"),
        ({"train__model": "liner"}, r"did you mean 'linear'"),
        ({"train__image_size": 32}, r"train\.image_size: it is of images, and has no effect"),
        ({"train__crop_padding": 4}, r"train\.crop_padding: it is of images"),
        ({"train__flip": True}, r"train\.flip: it is of images"),
    ],
)
def test_keys_of_images_are_refused(make_job: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_head(make_job(train__input="features", **changes))
