"""Learning to reweight: weights equal double backward by epsilon at 0, and find wrong labels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from meta_reference import images, losses_at, mlp
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step
from cwerm.algorithms.reweighting.metaweight import LearningToReweight

pytestmark = pytest.mark.usefixtures("on_one_thread")


def _reference(model: nn.Module, batch: tuple, meta_batch: tuple, lr: float) -> torch.Tensor:
    """The paper's Algorithm 1, lines 4 to 11, scaled to mean 1."""
    theta = dict(model.named_parameters())
    epsilon = torch.zeros(len(batch[1])).double().requires_grad_()
    loss = (epsilon * losses_at(model, theta, batch)).sum()
    gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    after = {n: p - lr * g for (n, p), g in zip(theta.items(), gradients, strict=True)}
    meta_loss = losses_at(model, after, meta_batch).mean()
    weights = (-torch.autograd.grad(meta_loss, epsilon)[0]).clamp(min=0)
    return weights / weights.mean()


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return (mlp() if name == "mlp" else timm.create_model("resnet20")).double()


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
def test_two_steps_equal_the_papers(name: str) -> None:
    model = _network(name)
    other = copy.deepcopy(model)
    sgd, other_sgd = (
        torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
        for m in (model, other)
    )
    for seed in range(2):
        batch, meta_batch = images(12, seed), images(9, seed + 5)
        weights = _reference(other, batch, meta_batch, 0.1)
        other_sgd.zero_grad()
        losses = nn.functional.cross_entropy(other(batch[0]), batch[1], reduction="none")
        (weights * losses).mean().backward()
        other_sgd.step()
        step = reweight_step(model, batch, meta_batch, sgd)
        assert 0 < (weights == 0).sum() < 12
        torch.testing.assert_close(step.weights, weights, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(step.losses, losses.detach())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], rtol=1e-8, atol=1e-10)


def test_all_weights_are_zero_where_no_sample_helps() -> None:
    """A meta batch that is the batch with labels swapped: each step on one hurts the other."""
    model = nn.Linear(1, 2).double()
    with torch.no_grad():
        model.weight.zero_(), model.bias.zero_()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    inputs = torch.ones(4, 1).double()
    batch, meta_batch = (inputs, torch.zeros(4).long()), (inputs, torch.ones(4).long())
    step = reweight_step(model, batch, meta_batch, sgd)
    assert torch.equal(step.weights, torch.zeros(4).double())
    assert all(bool((p == 0).all()) for p in model.parameters())


def test_wrong_labels_get_lower_weights_and_runs_resume() -> None:
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order]
    generator = np.random.default_rng(1)
    wrong = generator.random(600) < 0.4
    noisy = np.where(
        wrong, (labels[100:700] + generator.integers(1, 10, 600)) % 10, labels[100:700]
    )
    data = features[100:700], noisy, features[:100], labels[:100]
    states = []
    method = LearningToReweight(epochs=20, device="cpu")
    weights = method.fit(*data, on_epoch=lambda epoch, state: states.append(state()))
    assert weights.shape == (600,)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.min() >= 0
    assert roc_auc_score(~wrong, weights) > 0.9
    assert [record["epoch"] for record in method.history_] == list(range(20))
    again = LearningToReweight(epochs=20, device="cpu").fit(*data, state=states[16])
    np.testing.assert_array_equal(again, weights)


def test_useless_meta_sets_are_named() -> None:
    inputs = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    with pytest.raises(ValueError, match=r"every weight is 0.*check the meta set's labels"):
        LearningToReweight(epochs=2, device="cpu", lr=1e-9).fit(
            inputs, np.array([0, 0, 1, 1]), inputs, np.array([1, 1, 0, 0])
        )
