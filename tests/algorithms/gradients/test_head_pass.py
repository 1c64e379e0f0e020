"""A head on features in closed form gives what autograd gives; other models are left to that."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from meta_reference import difference, unrolled_gradient
from torch import Tensor, nn

from cwerm.algorithms.gradients.classifier_pass import ClassifierPass
from cwerm.algorithms.gradients.head_pass import HeadPass, pass_of
from cwerm.algorithms.gradients.meta_step import meta_gradient, meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step
from cwerm.algorithms.reweighting.weight_net import WeightNet

WIDTH, CLASSES, LR = 12, 4, 0.1
pytestmark = pytest.mark.usefixtures("on_one_thread")


def features(samples: int, seed: int, shares: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, WIDTH, generator=generator, dtype=torch.float64)
    if shares:  # that need not sum to one
        return inputs, torch.rand(samples, CLASSES, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, CLASSES, (samples,), generator=generator)


def head() -> nn.Sequential:
    torch.manual_seed(0)
    return feature_head(features(50, 7)[0], CLASSES, hidden=9).double()


class Unlike(nn.Sequential):
    """The same layers in a class of its own, which goes through autograd."""


@pytest.mark.parametrize("shares", [False, True])
def test_the_meta_gradient_is_that_of_double_backward(shares: bool) -> None:
    network, weight_net = head(), WeightNet().double()
    batch, meta_batch = features(24, 1, shares), features(20, 2, shares)
    assert isinstance(pass_of(network, batch, StepOptions()), HeadPass)
    expected = unrolled_gradient(network, weight_net, batch, meta_batch, LR)
    assert difference(meta_gradient(network, weight_net, batch, meta_batch, LR), expected) < 1e-12


@pytest.mark.parametrize("step", ["meta", "reweight"])
def test_steps_are_those_through_autograd(step: str) -> None:
    results = []
    for make in (nn.Sequential, Unlike):
        network = make(*head())
        weight_net = WeightNet().double()
        torch.manual_seed(1)
        for layer in weight_net.children():
            layer.reset_parameters()
        sgd = torch.optim.SGD(network.parameters(), LR, momentum=0.9, weight_decay=1e-2)
        adam = torch.optim.Adam(weight_net.parameters(), 1e-2)
        made = []
        for number in range(4):
            batch, meta_batch = features(24, number), features(20, 100 + number)
            if step == "meta":
                done = meta_step(network, weight_net, batch, meta_batch, sgd, adam, LR)
            else:
                done = reweight_step(network, batch, meta_batch, sgd)
            assert done.fallback is None
            made += [value for value in done if isinstance(value, Tensor)]
        results.append([*made, *network.state_dict().values(), *weight_net.state_dict().values()])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_ranks_take_the_step_of_one() -> None:
    """Two parts of a batch, whose sums are put together as an all-reduce does."""
    network, batch = head(), features(24, 1)
    whole = pass_of(network, batch, StepOptions())
    expected = whole.gradient(torch.ones_like, network.parameters())
    sums = []
    for rows in (slice(0, 10), slice(10, 24)):
        part = batch[0][rows], batch[1][rows]
        options = StepOptions(all_reduce_mean=lambda flat: sums.append(flat.clone()))
        pass_of(network, part, options).gradient(torch.ones_like, network.parameters())
    total = sums[0] + sums[1]
    found = (total[:-1] / total[-1]).split([value.numel() for value in expected])
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value.view(right.shape), right)


def test_buffers_before_the_head_are_seen_once() -> None:
    statistics = nn.BatchNorm1d(WIDTH, affine=False).double()
    network = nn.Sequential(statistics, *head()[1:])
    other = Unlike(*copy.deepcopy(network))
    weight_net, batch, meta_batch = WeightNet().double(), features(24, 1), features(20, 2)
    for model in (network, other):
        sgd = torch.optim.SGD(model.parameters(), LR)
        net = copy.deepcopy(weight_net)
        meta_step(model, net, batch, meta_batch, sgd, torch.optim.Adam(net.parameters()), LR)
        before = copy.deepcopy(model.state_dict())
        meta_gradient(model, net, batch, meta_batch, LR)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for found, expected in zip(
        network.state_dict().values(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def _hooked(network: nn.Sequential) -> nn.Module:
    network[2].register_forward_hook(lambda *_: None)
    return network


def _hooked_parameter(network: nn.Sequential) -> nn.Module:
    weight: Tensor = network[1].weight
    weight.register_hook(lambda gradient: gradient)
    return network


def _frozen(network: nn.Sequential) -> nn.Module:
    network[1].requires_grad_(False)
    return network


@pytest.mark.parametrize(
    "change",
    [
        _hooked,
        _hooked_parameter,
        _frozen,
        lambda network: Unlike(*network),
        lambda network: nn.Sequential(nn.Linear(WIDTH, WIDTH), *network),
        lambda network: nn.Sequential(*network, nn.Identity()),
        lambda network: nn.Sequential(network[0], network[1], nn.Tanh(), network[3]),
        lambda network: nn.Sequential(*network[:3], nn.Linear(9, CLASSES, bias=False)),
        lambda network: nn.utils.parametrizations.weight_norm(network[1]) and network,
    ],
)
def test_left_to_autograd(change: Callable[[nn.Sequential], nn.Module]) -> None:
    network = change(head()).double()
    assert type(pass_of(network, features(5, 1), StepOptions())) is ClassifierPass


def test_left_to_autograd_in_lower_precision() -> None:
    options = StepOptions(autocast=torch.bfloat16)
    assert type(pass_of(head(), features(5, 1), options)) is ClassifierPass


def test_labels_that_are_no_classes() -> None:
    inputs, labels = features(5, 1)
    with pytest.raises(ValueError, match="label"):
        meta_gradient(head(), WeightNet().double(), (inputs, labels + 3), (inputs, labels), LR)
