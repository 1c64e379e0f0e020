"""A meta step against double backward."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from meta_reference import (
    difference,
    group_norm_network,
    images,
    mlp,
    unrolled_gradient,
    vit,
)
from torch import nn
from torch.nn import functional

from cwerm.algorithms.gradients.meta_step import meta_gradient, meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.weight_net import WeightNet

LR = 0.1


pytestmark = pytest.mark.usefixtures("on_one_thread")


def _resnet() -> nn.Module:
    return timm.create_model("resnet20")


def _preact() -> nn.Module:
    return timm.create_model("preactresnet18")


def _vit() -> nn.Module:
    return vit(drop_rate=0.1, proj_drop_rate=0.1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": _resnet,
    "preactresnet18": _preact,
    "mlp": mlp,
    "group norm and dropout": group_norm_network,
    "vit": _vit,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_equals_double_backward(name: str) -> None:
    torch.manual_seed(1)
    network, weight_net = NETWORKS[name](), WeightNet()
    batch, meta_batch = images(24, 1, torch.float32), images(20, 2, torch.float32)
    torch.manual_seed(5)
    expected = unrolled_gradient(network, weight_net, batch, meta_batch, LR)
    torch.manual_seed(5)
    actual = meta_gradient(network, weight_net, batch, meta_batch, LR)
    assert difference(actual, expected) < 1e-5


def _setup(
    network: nn.Module, inputs: int = 1
) -> tuple[nn.Module, WeightNet, torch.optim.SGD, torch.optim.Adam]:
    network, weight_net = network.double(), WeightNet(inputs).double()
    sgd = torch.optim.SGD(network.parameters(), LR, momentum=0.9, weight_decay=1e-2)
    return network, weight_net, sgd, torch.optim.Adam(weight_net.parameters(), 1e-2)


def test_momentum_and_weight_decay_of_the_virtual_step() -> None:
    torch.manual_seed(0)
    network, weight_net, sgd, adam = _setup(_resnet())
    batch, meta_batch = images(10, 0), images(7, 1)
    meta_step(network, weight_net, batch, meta_batch, sgd, adam, LR)  # now momentum has a history
    plain = meta_gradient(network, weight_net, batch, meta_batch, LR)
    expected = unrolled_gradient(network, weight_net, batch, meta_batch, LR, optimizer=sgd)
    actual = meta_gradient(network, weight_net, batch, meta_batch, LR, optimizer=sgd)
    assert difference(actual, expected) < 1e-11
    assert difference(plain, expected) > 1e-2


def test_unknown_virtual_steps_are_named() -> None:
    torch.manual_seed(0)
    network, weight_net = mlp(), WeightNet()
    pair = images(6, 0, torch.float32)
    adam = torch.optim.Adam(network.parameters())
    with pytest.raises(ValueError, match=r"like Adam's is not known: use torch.optim.SGD"):
        meta_gradient(network, weight_net, pair, pair, LR, optimizer=adam)
    nesterov = torch.optim.SGD(network.parameters(), LR, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="no nesterov or dampening: set them to 0"):
        meta_gradient(network, weight_net, pair, pair, LR, optimizer=nesterov)


def test_two_inputs_of_the_weight_net() -> None:
    torch.manual_seed(0)
    network, weight_net = _resnet().double(), WeightNet(3).double()
    batch, meta_batch, extra = images(10, 0), images(7, 1), torch.rand(10, 2).double()
    expected = unrolled_gradient(network, weight_net, batch, meta_batch, LR, extra=extra)
    actual = meta_gradient(network, weight_net, batch, meta_batch, LR, extra=extra)
    assert difference(actual, expected) < 1e-11


@pytest.mark.slow
def test_bfloat16_is_exact_to_its_rounding() -> None:
    """The error against float32 is that of double backward under the same autocast."""
    torch.manual_seed(0)
    network, weight_net = _resnet(), WeightNet()
    batch, meta_batch = images(64, 0, torch.float32), images(64, 1, torch.float32)
    exact = unrolled_gradient(network, weight_net, batch, meta_batch, LR)
    options = StepOptions(autocast=torch.bfloat16)
    ours = meta_gradient(network, weight_net, batch, meta_batch, LR, options=options)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = unrolled_gradient(network, weight_net, batch, meta_batch, LR)
    assert all(gradient.dtype == torch.float32 for gradient in ours)
    assert 1e-5 < difference(ours, exact) < 2 * difference(theirs, exact) < 0.5


def test_a_step_without_meta_batch_is_a_weighted_one() -> None:
    torch.manual_seed(0)
    network, weight_net, sgd, adam = _setup(_resnet())
    other, before = copy.deepcopy(network), copy.deepcopy(weight_net.state_dict())
    other_sgd = torch.optim.SGD(other.parameters(), LR, momentum=0.9, weight_decay=1e-2)
    batch = images(10, 0)
    step = meta_step(network, weight_net, batch, None, sgd, adam, LR)
    losses = functional.cross_entropy(other(batch[0]), batch[1], reduction="none")
    weights = weight_net(losses.detach()[:, None]).detach()
    (weights * losses).mean().backward()
    other_sgd.step()
    assert step.meta_loss is None
    assert step.meta_logits is None
    torch.testing.assert_close(step.weights, weights)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-10, atol=1e-12)
    assert all(torch.equal(v, before[k]) for k, v in weight_net.state_dict().items())
