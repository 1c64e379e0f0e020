from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cwerm.algorithms.gradients.meta_step import meta_gradient
from cwerm.algorithms.reweighting.class_weight_net import ClassWeightNet, CMWNet, size_groups
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet


def spread(sizes: np.ndarray, groups: np.ndarray) -> float:
    parts = [sizes[groups == group] for group in np.unique(groups)]
    return float(sum(((part - part.mean()) ** 2).sum() for part in parts))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=7), st.integers(1, 3))
def test_groups_of_sizes_are_the_best_of_all(sizes: list[int], groups: int) -> None:
    """Against every assignment of the classes to as many groups."""
    values = np.array(sizes)
    found = size_groups(values, groups)
    assert len(set(found.tolist())) == min(groups, len(set(sizes)))
    every = itertools.product(range(groups), repeat=len(sizes))
    best = min(spread(values, np.array(assigned)) for assigned in every)
    assert spread(values, found) == pytest.approx(best, abs=1e-6)
    # ascending: a larger class is never in a lower group
    assert (np.diff(found[np.argsort(values, kind="stable")]) >= 0).all()


def branches(net: ClassWeightNet) -> list[nn.Sequential]:
    """The same as a network a group, as the paper draws it."""
    made = []
    for group in range(net.output.out_features):
        output = nn.Linear(net.output.in_features, 1)
        output.weight.data = net.output.weight.data[group : group + 1]
        output.bias.data = net.output.bias.data[group : group + 1]
        made.append(nn.Sequential(net.hidden, nn.ReLU(), output, nn.Sigmoid()))
    return made


def test_each_group_has_a_branch_of_its_own() -> None:
    torch.manual_seed(0)
    net = ClassWeightNet(3, 20)
    losses, groups = torch.rand(12) * 4, torch.arange(12) % 3
    found = net(torch.cat([losses[:, None], torch.eye(3)[groups]], 1))
    own = branches(net)
    expected = [own[g](loss[None, None]) for loss, g in zip(losses, groups, strict=True)]
    torch.testing.assert_close(found, torch.cat(expected).squeeze(1))


def test_the_meta_gradient_is_that_of_double_backward() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        net, model = ClassWeightNet(2, 8), nn.Linear(5, 3)
        inputs, labels = torch.randn(9, 5), torch.arange(9) % 3
        meta, meta_labels = torch.randn(6, 5), torch.arange(6) % 3
    finally:
        torch.set_default_dtype(torch.float32)
    columns = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 1])[labels]]
    found = meta_gradient(model, net, (inputs, labels), (meta, meta_labels), 0.5, extra=columns)
    losses = nn.functional.cross_entropy(model(inputs), labels, reduction="none")
    weights = net(torch.cat([losses.detach()[:, None], columns], 1))
    steps = torch.autograd.grad((weights * losses).mean(), [*model.parameters()], create_graph=True)
    weight, bias = (p - 0.5 * step for p, step in zip(model.parameters(), steps, strict=True))
    meta_loss = nn.functional.cross_entropy(meta @ weight.T + bias, meta_labels)
    for mine, expected in zip(
        found, torch.autograd.grad(meta_loss, [*net.parameters()]), strict=True
    ):
        torch.testing.assert_close(mine, expected)


def tail(sizes: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping classes of these sizes, and ten meta samples of each."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    meta_labels = np.repeat(np.arange(len(sizes)), 10)
    centres = 2 * np.eye(len(sizes), 6)
    features, meta = (
        (centres[y] + generator.standard_normal((len(y), 6))).astype(np.float32)
        for y in (labels, meta_labels)
    )
    return features, labels, meta, meta_labels


def test_classes_of_one_size_are_weighed_as_by_meta_weight_net() -> None:
    data = tail([12, 12, 12])
    weights = [method(epochs=1, seed=3).fit(*data) for method in (CMWNet, MetaWeightNet)]
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-5)


def test_a_rare_class_is_weighed_by_an_output_of_its_own() -> None:
    features, labels, meta, meta_labels = tail([120, 100, 9])
    names = np.array(["cat", "dog", "fox"])
    method = CMWNet(epochs=4, weight_lr=0.01, average_last=1)
    weights = method.fit(features, names[labels], meta, names[meta_labels])
    assert method.groups_.tolist() == [2, 1, 0]
    # of one loss: the rare class, which the meta set has as often as the others, counts for more
    same = method.weigh(np.full(3, 1.0, np.float32), names)
    assert same[2] > same[0] + 0.01
    at_end = method.weigh(method.losses_, names[labels])
    np.testing.assert_allclose(weights, at_end, atol=1e-6)
    with pytest.raises(ValueError, match="label cow was not among those of fit"):
        method.weigh(np.ones(2, np.float32), ["cat", "cow"])
    with pytest.raises(ValueError, match="give them, too"):
        method.weigh(np.ones(2, np.float32))
