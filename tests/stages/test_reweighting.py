"""The ways to reweight and to broadcast, as stages, against plain arrays."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

import cwerm
from cwerm.algorithms.labels.posterior import LabelPosterior
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.metaweight import LearningToReweight
from cwerm.algorithms.reweighting.weight_net import WeightNet
from cwerm.errors import UserError
from cwerm.runs.folder import weight_scores
from cwerm.runs.preflight import check_methods
from cwerm.stages import common
from cwerm.stages.broadcast import coreset_neighbors
from stages.conftest import Fork, Vary
from stages.noisy import Arrays, learned_weights, scaled, weights_of

# --- ways to reweight ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"coreset__meta": "none"}, id="nothing clean"),
        pytest.param({}, id="a hold-out", marks=pytest.mark.slow),
        pytest.param({"coreset__ratio": 0.5}, id="a part", marks=pytest.mark.slow),
    ],
)
def test_posterior_is_that_of_the_arrays_and_finds_the_errors(
    vary: Vary, changes: dict[str, Any]
) -> None:
    """With nothing clean, with a hold-out that is, and learned on a part of the samples."""
    changes = {"coreset__ratio": None, **changes}
    mine = vary("broadcast", reweight__method="auto", broadcast__method="auto", **changes)
    assert (mine.job.reweight.method, mine.job.spreading.method) == ("posterior", "function")
    arrays = Arrays(mine)
    plain = LabelPosterior(10, mine.job.seed)
    trusted = {}
    if mine.job.has_meta:
        vectors = arrays.features[arrays.meta]
        trusted = {"trusted_features": vectors, "trusted_labels": arrays.meta_labels}
    plain.fit(arrays.features[arrays.ids], arrays.labels[arrays.ids], **trusted)
    row_of = np.full(400, -1)
    row_of[arrays.ids] = np.arange(len(arrays.ids))
    expected = plain.judge(arrays.features, arrays.labels, reference_rows=row_of)
    table = mine.table("broadcast", "weights")
    np.testing.assert_allclose(common.column(table, "quality"), expected.quality, atol=1e-3)
    np.testing.assert_allclose(weights_of(mine), scaled(expected.weight), atol=5e-3)
    np.testing.assert_allclose(learned_weights(mine), expected.weight[arrays.ids], atol=5e-3)
    surely = expected.suggestion_probability > 0.9
    suggested = common.column(table, "suggested_label")
    assert np.array_equal(suggested[surely], expected.suggested[surely])
    scores = weight_scores(mine.plan)
    clean = common.clean_labels_of(mine.store, mine.made["label"])
    ids, _ = mine.training_set()
    right = (clean == arrays.labels)[ids]
    expected_score = roc_auc_score(right, common.column(table, "quality")[ids])
    assert scores["auroc"] == pytest.approx(expected_score, abs=1e-6)
    assert expected_score > 0.85
    (line, *_) = mine.made["broadcast"].info["found"]
    assert line.startswith("about ")
    assert re.search(r"% \(\d+-\d+\) of 400 labels look wrong: weights from 0 to \d", line)


@pytest.mark.slow
def test_learning_to_reweight_is_that_of_the_arrays(vary: Vary) -> None:
    mine = vary("broadcast", reweight__method="l2r", broadcast__method="auto")
    assert mine.job.spreading.method == "vote"
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
    mine = vary("broadcast", reweight__method="uniform", broadcast__method="nearest")
    assert (learned_weights(mine) == 1).all()
    assert (weights_of(mine) == 1).all()


# --- ways to broadcast -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [pytest.param("function", marks=pytest.mark.slow), "agreement"])
def test_the_weight_net_is_evaluated_on_every_sample(vary: Vary, method: str) -> None:
    mine = vary("broadcast", broadcast__method=method, reweight__method="metaweightnet")
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


@pytest.mark.slow
def test_a_classifier_of_images_is_evaluated_on_every_image(vary: Vary) -> None:
    mine = vary(
        "broadcast", broadcast__method="function", reweight__method="metaweightnet",
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
        ({"method": "erm", "control": "permuted"}, "control: 'permuted' changes weights"),
        ({"method": "c-random-erm", "control": "constant"}, "method c-random-erm has none"),
        (
            {"reweight__method": "l2r", "coreset__meta": "none"},
            "give data.trusted, or coreset.meta",
        ),
        ({"method": "w-erm", "coreset__meta": "none"}, "'metaweightnet' learns from samples"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    vary: Vary, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_methods(vary(None, **changes).job)


@pytest.mark.parametrize("method", [pytest.param("nearest", marks=pytest.mark.slow), "vote"])
def test_an_index_in_shards_finds_what_the_whole_one_does(
    fork: Fork, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    changes = {"broadcast__method": method, "broadcast__neighbors": 3}
    tables = []
    for most in (2**31, 100_000):  # bytes; 40 vectors of 1280 dimensions take 411,200
        mine = fork("broadcast", broadcast__max_index_bytes=most, **changes)
        monkeypatch.setattr(coreset_neighbors, "PARTS_HERE", 16 if most == 2**31 else 2)
        tables.append(mine.store.read(mine.run("broadcast"), "weights"))
        features = mine.made["extract"]
        assert coreset_neighbors.num_shards(mine.store, features, 40, most) == (
            1 if most == 2**31 else 5
        )
    whole, sharded = tables
    assert sharded.equals(whole)
