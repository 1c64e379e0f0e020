"""The five methods, the ways to reweight and to broadcast, and the controls, on images with wrong labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

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
from cwerm.config import parse_job
from cwerm.errors import UserError
from cwerm.runs import weight_scores
from cwerm.stages import broadcast, common, extract, ingest, reweight, select, train
from stages.conftest import CHAIN, Chain, chain_tree, run_stages

Vary = Callable[..., Chain]


@pytest.fixture(scope="module")
def noisy(ray_session: None, parted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Ingest, extract and select with 40 % of the labels wrong, a quarter of the images as coreset."""
    tree = chain_tree(parted_data, tmp_path_factory.mktemp("noisy"))
    tree["data"] |= {"noise": "symmetric", "noise_rate": 0.4}
    tree["coreset"] |= {"method": "random", "ratio": 0.25, "meta_per_class": 5}
    return run_stages(parse_job(tree), (ingest, extract, select))


@pytest.fixture
def vary(noisy: Chain) -> Vary:
    """The noisy chain with other settings, run up to a stage; keys keep artifacts apart."""

    def run(last: ModuleType | None, **changes: Any) -> Chain:
        tree = noisy.job.model_dump()
        for key, value in changes.items():
            *sections, name = key.split("__")
            section = tree
            for part in sections:
                section = section[part]
            section[name] = value
        stages = CHAIN[: CHAIN.index(last) + 1] if last else ()
        return run_stages(parse_job(tree), stages)

    return run


class Arrays:
    """What the stages have read, as plain arrays."""

    def __init__(self, chain: Chain) -> None:
        features = chain.table("extract", "features")
        self.features = common.column(features, "feature").astype(np.float32)
        self.labels = common.column(features, "label").astype(np.int64)
        coreset, meta = chain.table("select", "coreset"), chain.table("select", "meta")
        self.ids, self.meta = common.column(coreset, "id"), common.column(meta, "id")
        self.meta_labels = common.column(meta, "label").astype(np.int64)

    @property
    def sets(self) -> tuple[np.ndarray, ...]:
        """Coreset and meta set as `fit` takes them."""
        coreset = self.features[self.ids], self.labels[self.ids]
        return *coreset, self.features[self.meta], self.meta_labels

    def agreement(self, neighbors: int) -> np.ndarray:
        """Share of each sample's nearest other coreset samples with its label, by brute force."""
        exact = self.features.astype(np.float64)
        shares = []
        for i in range(len(exact)):
            others = self.ids[self.ids != i]
            near = others[np.argsort(((exact[others] - exact[i]) ** 2).sum(1))[:neighbors]]
            shares.append(np.mean(self.labels[near] == self.labels[i]))
        return np.array(shares, dtype=np.float32)


def weights_of(chain: Chain) -> np.ndarray:
    return common.column(chain.table("broadcast", "weights"), "weight")


def scaled(weights: np.ndarray) -> np.ndarray:
    return weights / weights.mean(dtype=np.float64)


def learned_weights(chain: Chain) -> np.ndarray:
    return common.column(chain.table("reweight", "coreset_weights"), "weight")


# --- the meta set ----------------------------------------------------------------------------------


def test_the_hold_out_has_right_labels(noisy: Chain) -> None:
    clean = common.clean_labels_of(noisy.store, noisy.made["ingest"])
    assert clean is not None
    arrays = Arrays(noisy)
    assert np.array_equal(arrays.meta_labels, clean[arrays.meta])
    assert (arrays.labels[arrays.meta] != arrays.meta_labels).any(), "noise hit the hold-out, too"
    assert np.bincount(arrays.meta_labels).tolist() == [5] * 10
    assert not set(arrays.meta) & set(arrays.ids)


def test_an_automatic_meta_set_is_the_part_of_the_coreset_that_agrees(vary: Vary) -> None:
    mine = vary(select, coreset__meta="auto", coreset__ratio=0.5, coreset__meta_per_class=3)
    arrays = Arrays(mine)
    assert len(arrays.meta) + len(arrays.ids) == 200
    assert not set(arrays.meta) & set(arrays.ids)
    assert np.array_equal(arrays.meta_labels, arrays.labels[arrays.meta])
    clean = common.clean_labels_of(mine.store, mine.made["ingest"])
    assert clean is not None
    right = clean == arrays.labels
    assert right[arrays.meta].mean() > right[arrays.ids].mean() + 0.15
    plain = vary(ingest, coreset__meta="auto", method="erm")
    ids, _ = train.training_set(plain.job, plain.store, plain.made["ingest"])
    assert np.array_equal(ids, np.arange(400)), "nothing is held out"


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


@pytest.mark.parametrize("method", ["function", "agreement"])
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


# --- methods and controls --------------------------------------------------------------------------


def test_all_samples_are_reweighted_alike_on_one_worker_or_two(vary: Vary) -> None:
    changes = {"method": "w-erm", "reweight__epochs": 2, "reweight__average_last": 1}
    two = vary(broadcast, **changes)
    arrays = Arrays(two)
    assert len(arrays.ids) == 350, "all but the meta set"
    plain = cwerm.MetaWeightNet(
        epochs=2, batch_size=100, lr=0.01, weight_decay=0.01, average_last=1, seed=two.job.seed,
        device="cpu",
    )  # fmt: skip
    expected = plain.fit(*arrays.sets)
    np.testing.assert_allclose(learned_weights(two), expected, rtol=1e-4)
    raw = np.full(400, expected.mean())
    raw[arrays.ids] = expected
    np.testing.assert_allclose(weights_of(two), scaled(raw), rtol=1e-4)
    history = json.loads(two.store.read_file(two.made["reweight"], "history.json"))
    for name, value in plain.history_[-1].items():
        assert history[-1][name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize(
    ("method", "coreset"), [("c-random-erm", "random"), ("c-moderate-erm", "moderate")]
)
def test_a_coreset_alone_is_trained_on(vary: Vary, method: str, coreset: str) -> None:
    mine = vary(select, method=method, coreset__method="herding")
    images = mine.made["ingest"]
    ids, weights = train.training_set(mine.job, mine.store, images)
    chosen = vary(select, coreset__method=coreset)
    assert np.array_equal(ids, common.column(chosen.table("select", "coreset"), "id"))
    assert (weights == 1).all()


def test_controls_change_the_weights_and_nothing_else(vary: Vary) -> None:
    mine = vary(broadcast, reweight__method="posterior", broadcast__method="function")
    images = mine.made["ingest"]
    ids, weights = train.training_set(mine.job, mine.store, images)
    assert np.array_equal(weights, weights_of(mine)[ids])
    keys = {train.key(mine.job, mine.store)}
    for control in ("constant", "permuted"):
        job = mine.job.model_copy(update={"control": control})
        assert broadcast.key(job, mine.store) == broadcast.key(mine.job, mine.store)
        same, changed = train.training_set(job, mine.store, images)
        assert np.array_equal(same, ids)
        if control == "constant":
            assert (changed == 1).all()
        else:
            assert np.array_equal(np.sort(changed), np.sort(weights))
            assert abs(np.corrcoef(changed, weights)[0, 1]) < 0.2
        keys.add(train.key(job, mine.store))
    assert len(keys) == 3
    untrained = vary(
        broadcast, control="untrained", reweight__method="posterior", broadcast__method="auto"
    )
    assert (weights_of(untrained) == 1).all()


def test_an_untrained_weight_net_is_as_it_was_drawn(vary: Vary) -> None:
    from safetensors.torch import load

    mine = vary(reweight, control="untrained", reweight__method="metaweightnet")
    found = load(mine.store.read_file(mine.made["reweight"], "weight_net.safetensors"))
    arrays = Arrays(mine)
    plain = cwerm.MetaWeightNet(
        epochs=1, batch_size=100, weight_lr=0.0, seed=mine.job.seed, device="cpu"
    )
    plain.fit(*arrays.sets)
    for name, tensor in plain.weight_net.state_dict().items():
        assert torch.equal(found[name], tensor), name
