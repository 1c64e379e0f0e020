"""The five methods, the meta set and the controls, on images with wrong labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import cwerm
from cwerm.pipeline import plan
from cwerm.stages import common
from stages.conftest import Chain, Vary
from stages.noisy import Arrays, learned_weights, scaled, weights_of

# --- the meta set ----------------------------------------------------------------------------------


def test_the_hold_out_has_right_labels(noisy: Chain) -> None:
    clean = common.clean_labels_of(noisy.store, noisy.made["label"])
    assert clean is not None
    arrays = Arrays(noisy)
    assert np.array_equal(arrays.meta_labels, clean[arrays.meta])
    assert (arrays.labels[arrays.meta] != arrays.meta_labels).any(), "noise hit the hold-out, too"
    assert np.bincount(arrays.meta_labels).tolist() == [5] * 10
    assert not set(arrays.meta) & set(arrays.ids)


def test_without_a_meta_set_nothing_is_held_out_or_believed(vary: Vary) -> None:
    mine = vary("select", coreset__meta="none", coreset__ratio=None, reweight__method="posterior")
    ids = common.column(mine.table("select", "coreset"), "id")
    assert np.array_equal(ids, np.arange(400)), "up to 20,000 samples are the reference set"
    assert "meta" not in mine.made["select"].tables
    plain = vary("label", coreset__meta="none", method="erm")
    ids, _ = plain.training_set()
    assert np.array_equal(ids, np.arange(400))


# --- methods and controls --------------------------------------------------------------------------


@pytest.mark.slow
def test_reweighting_all_samples_on_two_workers_is_that_of_one_process(vary: Vary) -> None:
    changes = {
        "method": "w-erm",
        "resources__workers": 2,
        "reweight__epochs": 2,
        "reweight__average_last": 1,
    }
    two = vary("broadcast", **changes)
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
    mine = vary("select", method=method, coreset__method="herding")
    ids, weights = mine.training_set()
    chosen = vary("select", coreset__method=coreset)
    assert np.array_equal(ids, common.column(chosen.table("select", "coreset"), "id"))
    assert (weights == 1).all()


def test_controls_change_the_weights_and_nothing_else(vary: Vary) -> None:
    posterior = {"reweight__method": "posterior", "coreset__ratio": None}
    mine = vary("broadcast", **posterior, broadcast__method="function")
    ids, weights = mine.training_set()
    assert weights.std() > 0, "wrong labels were found"
    assert np.array_equal(weights, weights_of(mine)[ids])
    keys = {mine.plan["train"].key}
    for control in ("constant", "permuted"):
        other = Chain(plan(mine.job.model_copy(update={"control": control})))
        assert other.plan["broadcast"].key == mine.plan["broadcast"].key
        same, changed = other.training_set()
        assert np.array_equal(same, ids)
        if control == "constant":
            assert (changed == 1).all()
        else:
            assert np.array_equal(np.sort(changed), np.sort(weights))
            assert abs(np.corrcoef(changed, weights)[0, 1]) < 0.2
        keys.add(other.plan["train"].key)
    assert len(keys) == 3
    untrained = vary("broadcast", control="untrained", **posterior, broadcast__method="auto")
    assert (weights_of(untrained) == 1).all()


def test_an_untrained_weight_net_is_as_it_was_drawn(vary: Vary) -> None:
    from safetensors.torch import load

    mine = vary("reweight", control="untrained", reweight__method="metaweightnet")
    found = load(mine.store.read_file(mine.made["reweight"], "weight_net.safetensors"))
    arrays = Arrays(mine)
    plain = cwerm.MetaWeightNet(
        epochs=1, batch_size=100, weight_lr=0.0, seed=mine.job.seed, device="cpu"
    )
    plain.fit(*arrays.sets)
    for name, tensor in plain.weight_net.state_dict().items():
        assert torch.equal(found[name], tensor), name
