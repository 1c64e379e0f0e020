"""The ways to reweight and to broadcast, as stages, against plain arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

import cwerm
from cwerm.algorithms.meta_data import feature_head
from cwerm.algorithms.metaweight import LearningToReweight
from cwerm.algorithms.posterior import LabelPosterior
from cwerm.algorithms.weight_net import WeightNet
from cwerm.errors import UserError
from cwerm.runs import weight_scores
from cwerm.stages import broadcast, common, reweight
from stages.conftest import Fork, Vary
from stages.noisy import Arrays, learned_weights, scaled, weights_of

# --- ways to reweight ------------------------------------------------------------------------------


def test_posterior_is_that_of_the_arrays_and_finds_the_errors(vary: Vary) -> None:
    mine = vary(broadcast, reweight__method="auto", broadcast__method="auto")
    assert (mine.job.reweight_method, mine.job.broadcast_method) == ("posterior", "function")
    arrays = Arrays(mine)
    plain = LabelPosterior(10, mine.job.seed).fit(*arrays.sets)
    expected = plain.weigh(arrays.features, arrays.labels)
    # L-BFGS stops a little elsewhere with other threads
    np.testing.assert_allclose(learned_weights(mine), expected[arrays.ids], atol=1e-2)
    found = weights_of(mine)
    for label in range(10):
        members = arrays.labels == label
        np.testing.assert_allclose(found[members], scaled(expected[members]), atol=2e-2)
    scores = weight_scores(mine.job, mine.store, mine.made["ingest"])
    clean = common.clean_labels_of(mine.store, mine.made["ingest"])
    rest = np.setdiff1d(np.arange(400), arrays.meta)
    expected_score = roc_auc_score((clean == arrays.labels)[rest], found[rest])
    assert scores["auroc"] == pytest.approx(expected_score, abs=1e-6)
    assert expected_score > 0.75
    history = json.loads(mine.store.read_file(mine.made["reweight"], "history.json"))
    assert history["strength"] == pytest.approx(plain.strength, abs=1e-3)


def test_learning_to_reweight_is_that_of_the_arrays(vary: Vary) -> None:
    mine = vary(broadcast, reweight__method="l2r", broadcast__method="auto")
    assert mine.job.broadcast_method == "vote"
    section = mine.job.reweight
    plain = LearningToReweight(
        epochs=6, batch_size=100, meta_batch_size=100, lr=section.lr, momentum=section.momentum,
        weight_decay=section.weight_decay, average_last=section.average_last, seed=mine.job.seed,
        device="cpu",
    )  # fmt: skip
    arrays = Arrays(mine)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = plain.fit(*arrays.sets)
    torch.set_num_threads(threads)
    np.testing.assert_allclose(learned_weights(mine), expected, rtol=1e-4, atol=1e-5)
    voted, _, _ = cwerm.broadcast_weights(
        arrays.features, arrays.labels, arrays.ids, learned_weights(mine), "vote", neighbors=10
    )
    np.testing.assert_allclose(weights_of(mine), voted, rtol=1e-4, atol=1e-6)


def test_uniform_weights_are_one(vary: Vary) -> None:
    mine = vary(broadcast, reweight__method="uniform", broadcast__method="nearest")
    assert (learned_weights(mine) == 1).all()
    assert (weights_of(mine) == 1).all()


# --- ways to broadcast -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [pytest.param("function", marks=pytest.mark.slow), "agreement"])
def test_the_weight_net_is_evaluated_on_every_sample(vary: Vary, method: str) -> None:
    mine = vary(broadcast, broadcast__method=method, reweight__method="metaweightnet")
    arrays, made = Arrays(mine), mine.made["reweight"]
    from safetensors.torch import load

    head = feature_head(torch.zeros(2, arrays.features.shape[1]), 10)
    head.load_state_dict(load(mine.store.read_file(made, "classifier.safetensors")))
    net = WeightNet(2 if method == "agreement" else 1)
    net.load_state_dict(load(mine.store.read_file(made, "weight_net.safetensors")))
    with torch.inference_mode():
        logits = head.eval()(torch.from_numpy(arrays.features))
        columns = [
            functional.cross_entropy(logits, torch.from_numpy(arrays.labels), reduction="none")
        ]
        if method == "agreement":
            columns.append(torch.from_numpy(arrays.agreement(10)))
        expected = net(torch.stack(columns, 1)).numpy()
    np.testing.assert_allclose(weights_of(mine), scaled(expected), rtol=1e-4, atol=1e-5)
    losses = common.column(mine.table("reweight", "coreset_weights"), "loss")
    np.testing.assert_allclose(losses, columns[0].numpy()[arrays.ids], rtol=1e-4, atol=1e-5)


def test_a_classifier_of_images_is_evaluated_on_every_image(vary: Vary) -> None:
    mine = vary(
        broadcast, broadcast__method="function", reweight__method="metaweightnet",
        reweight__input="images", reweight__model="small_cnn", reweight__epochs=2,
        reweight__average_last=1, reweight__augment=True,
    )  # fmt: skip
    found, arrays = weights_of(mine), Arrays(mine)
    # on the coreset, V of the loss at the last epoch's end is what the reweight stage gave
    np.testing.assert_allclose(scaled(found[arrays.ids]), scaled(learned_weights(mine)), rtol=1e-3)
    assert found.std() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reweight__method": "l2r", "broadcast__method": "function"}, "learns no such function"),
        ({"reweight__method": "posterior", "broadcast__method": "agreement"}, "broadcast.method"),
        ({"method": "w-erm", "reweight__method": "posterior"}, "use metaweightnet or l2r"),
        ({"reweight__method": "uniform", "control": "untrained"}, "control: 'untrained'"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    vary: Vary, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        reweight.check(vary(None, **changes).job)


@pytest.mark.parametrize("method", [pytest.param("nearest", marks=pytest.mark.slow), "vote"])
def test_an_index_in_shards_finds_what_the_whole_one_does(fork: Fork, method: str) -> None:
    changes = {"broadcast__method": method, "broadcast__neighbors": 3}
    tables = []
    for most in (2**31, 100_000):  # bytes; 40 vectors of 1280 dimensions take 411,200
        mine = fork(broadcast, broadcast__max_index_bytes=most, **changes)
        made = broadcast.run(mine.job, mine.store)
        tables.append(mine.store.read(made, "weights"))
        folder = Path(mine.job.storage, made.folder)
        shards = {path.name.split("-")[1] for path in folder.rglob("neighbors-*.parquet")}
        assert len(shards) == (0 if most == 2**31 else 5)
    whole, sharded = tables
    assert sharded.equals(whole)
