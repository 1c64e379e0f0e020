"""Select, reweight and broadcast against the same computations on plain arrays."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load

import cwerm
from cwerm.stages import common
from stages.conftest import Chain, Fork, assert_same_features, run_stages

# --- select ----------------------------------------------------------------------------------------


def candidates_of(chain: Chain) -> np.ndarray:
    meta = common.column(chain.table("select", "meta"), "id")
    return np.setdiff1d(np.arange(400), meta)


@pytest.mark.parametrize("dtype", ["float16", pytest.param("float32", marks=pytest.mark.slow)])
def test_the_coreset_is_that_of_the_arrays(fork: Fork, chain: Chain, dtype: str) -> None:
    mine = chain if dtype == "float16" else fork("extract", features__dtype=dtype)
    mine = run_stages(mine.job, "select")
    features = common.column(mine.table("extract", "features"), "feature")
    labels = mine.labels
    assert features.dtype == np.dtype(dtype)
    rest = candidates_of(mine)
    coreset = mine.table("select", "coreset")
    ids = common.column(coreset, "id")
    chosen = cwerm.select_coreset(features[rest], labels[rest], ratio=40 / len(rest))
    assert np.array_equal(ids, rest[chosen])
    assert np.array_equal(common.column(coreset, "label"), labels[ids])
    for label in range(10):
        center = np.median(features[rest][labels[rest] == label].astype(np.float64), axis=0)
        rows = labels[ids] == label
        expected = np.linalg.norm(features[ids[rows]] - center.astype(np.float32), axis=1)
        np.testing.assert_allclose(common.column(coreset, "distance")[rows], expected, rtol=1e-5)


def test_the_meta_set_is_balanced_and_apart(chain: Chain, arrays: Any) -> None:
    meta = common.column(chain.table("select", "meta"), "id")
    coreset = common.column(chain.table("select", "coreset"), "id")
    assert not np.intersect1d(meta, coreset).size
    assert np.bincount(arrays[1][meta]).tolist() == [2] * 10
    assert np.array_equal(common.column(chain.table("select", "meta"), "label"), arrays[1][meta])


def test_global_scope(fork: Fork, chain: Chain, arrays: Any) -> None:
    mine = fork("select", coreset__scope="global", seed=3)
    made = mine.run("select")
    ids = common.column(mine.store.read(made, "coreset"), "id")
    rest = np.setdiff1d(np.arange(400), common.column(mine.store.read(made, "meta"), "id"))
    features, labels = (values[rest] for values in arrays)
    chosen = cwerm.select_coreset(features, labels, ratio=40 / len(rest), scope="global", seed=3)
    assert np.array_equal(ids, rest[chosen])


@pytest.mark.parametrize("method", ["random", "herding", "grand"])
def test_methods_that_look_at_other_things(fork: Fork, arrays: Any, method: str) -> None:
    """One method for each kind of evidence: labels, features, a head's outputs."""
    mine = fork("select", coreset__method=method, seed=2)
    made = mine.run("select")
    ids = common.column(mine.store.read(made, "coreset"), "id")
    rest = np.setdiff1d(np.arange(400), common.column(mine.store.read(made, "meta"), "id"))
    features, labels = (values[rest] for values in arrays)
    chosen = cwerm.select_coreset(features, labels, ratio=40 / len(rest), method=method, seed=2)
    assert np.array_equal(ids, rest[chosen])


# --- reweight --------------------------------------------------------------------------------------


def plain_fit(job: Any, classifier: Any, inputs: list[np.ndarray]) -> Any:
    section = job.reweight
    method = cwerm.MetaWeightNet(
        classifier,
        **section.model_dump(
            exclude={"method", "preset", "input", "model", "image_size", "augment", "precision"}
        ),
        seed=job.seed,
        device="cpu",
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if classifier is None else 2)
    try:
        return method, method.fit(*inputs)
    finally:
        torch.set_num_threads(threads)


def test_coreset_weights_are_those_of_meta_weight_net(chain: Chain, arrays: Any) -> None:
    coreset, meta = (chain.table("select", name) for name in ("coreset", "meta"))
    inputs = []
    for rows in (coreset, meta):
        inputs.append(arrays[0][common.column(rows, "id")].astype(np.float32))
        inputs.append(common.column(rows, "label").astype(np.int64))
    method, weights = plain_fit(chain.job, None, inputs)
    found = chain.table("reweight", "coreset_weights")
    assert found.column("id").equals(coreset.column("id"))
    np.testing.assert_allclose(common.column(found, "weight"), weights, rtol=1e-5)
    np.testing.assert_allclose(common.column(found, "loss"), method.losses_, rtol=1e-4, atol=1e-6)
    saved = load(chain.store.read_file(chain.made["reweight"], "weight_net.safetensors"))
    for name, tensor in method.weight_net.state_dict().items():
        np.testing.assert_allclose(saved[name], tensor.numpy(), rtol=1e-4, atol=1e-6)
    history = json.loads(chain.store.read_file(chain.made["reweight"], "history.json"))
    assert [entry["epoch"] for entry in history] == list(range(chain.job.reweight.epochs))


def test_reweight_on_images(fork: Fork, chain: Chain) -> None:
    mine = fork(
        "reweight", reweight__input="images", reweight__model="resnet20", reweight__epochs=2
    )
    made = mine.run("reweight")
    images = chain.table("ingest", "images").column("image").to_pylist()
    arrays = {}
    for name in ("coreset", "meta"):
        ids = common.column(chain.table("select", name), "id")
        decoded = [np.asarray(Image.open(io.BytesIO(images[i])).convert("RGB")) for i in ids]
        arrays[name] = np.stack(decoded).transpose(0, 3, 1, 2) / 255
    mean = arrays["coreset"].mean(axis=(0, 2, 3), keepdims=True)
    std = arrays["coreset"].std(axis=(0, 2, 3), keepdims=True)
    inputs = []
    for name, values in arrays.items():
        inputs.append(((values - mean) / std).astype(np.float32))
        inputs.append(common.column(chain.table("select", name), "label").astype(np.int64))
    torch.manual_seed(mine.job.seed)
    classifier = timm.create_model("resnet20", num_classes=10)
    _, weights = plain_fit(mine.job, classifier.to(memory_format=torch.channels_last), inputs)
    found = common.column(mine.store.read(made, "coreset_weights"), "weight")
    np.testing.assert_allclose(found, weights, rtol=1e-3)


# --- broadcast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("neighbors", [1, 3])
def test_weights_are_those_of_the_arrays(
    fork: Fork, chain: Chain, arrays: Any, neighbors: int
) -> None:
    mine = chain
    if neighbors > 1:
        mine = fork("broadcast", broadcast__neighbors=neighbors)
        mine.made["broadcast"] = mine.run("broadcast")
    learned = chain.table("reweight", "coreset_weights")
    ids, weights = (common.column(learned, name) for name in ("id", "weight"))
    expected, near, distances = cwerm.broadcast_weights(*arrays, ids, weights, neighbors=neighbors)
    found = mine.table("broadcast", "weights")
    assert np.array_equal(common.column(found, "id"), np.arange(400))
    assert np.array_equal(common.column(found, "label"), arrays[1])
    np.testing.assert_allclose(common.column(found, "weight"), expected, rtol=1e-5)
    assert np.array_equal(common.column(found, "neighbor_id"), near[:, 0])
    assert np.array_equal(common.column(found, "neighbor_label"), arrays[1][near[:, 0]])
    np.testing.assert_allclose(
        common.column(found, "neighbor_distance"), distances[:, 0], rtol=1e-5, atol=1e-4
    )
    assert abs(common.column(found, "weight").mean(dtype=np.float64) - 1) < 1e-6
    assert len(mine.made["broadcast"].tables["weights"]) == 8


# --- the number of workers -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_the_weights_do_not_depend_on_the_number_of_workers(
    fork: Fork, chain: Chain, arrays: Any, workers: int
) -> None:
    mine = fork("ingest", resources__workers=workers)
    mine = run_stages(mine.job, "broadcast")
    columns = ["id", "label"]
    for stage, table in (("label", "labels"), ("select", "coreset"), ("select", "meta")):
        found, expected = (c.table(stage, table).select(columns) for c in (mine, chain))
        assert found.equals(expected)
    features = common.column(mine.table("extract", "features"), "feature")
    assert_same_features(features, arrays[0])
    found, expected = (
        common.column(c.table("broadcast", "weights"), "weight") for c in (mine, chain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "size", "epochs"),
    [(None, 100, 1500), (None, 501, 250), (None, 10**6, 10), (7, 100, 7)],
)
def test_small_coresets_get_enough_steps(chain: Chain, asked: Any, size: int, epochs: int) -> None:
    method = chain.job.reweight.model_copy(update={"epochs": asked})
    assert method.num_epochs(size) == epochs
