"""What a step does with all parameters at once equals what it would do with each."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import timm
import torch
from meta_reference import difference, images, unrolled_gradient
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cwerm.algorithms.gradients import many_tensors
from cwerm.algorithms.gradients.many_tensors import buffers_of, inner_product, virtual_step
from cwerm.algorithms.gradients.meta_step import meta_gradient, meta_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.reweighting.feature_head import feature_head
from cwerm.algorithms.reweighting.learning_to_reweight import reweight_step
from cwerm.algorithms.reweighting.weight_net import WeightNet

LR = 0.1

pytestmark = pytest.mark.usefixtures("on_one_thread")


class Calls(TorchDispatchMode):
    """Counts what is dispatched, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


class Moving(nn.Module):
    """BatchNorm, and then a buffer that the forward itself writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(12), nn.Linear(12, 10)
        self.register_buffer("scale", torch.ones(12))
        self.register_buffer("turned", torch.rand(3, 12).t())

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.flatten(1)[:, :12])
        self.scale.mul_(0.9).add_(0.1 * x.detach().abs().mean(0))
        return self.out(x * self.scale.clone()) + self.turned.sum()


def test_a_forward_may_write_to_its_buffers() -> None:
    torch.manual_seed(0)
    network, weight_net = Moving().double(), WeightNet().double()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    batch, meta_batch = images(10, 0), images(7, 1)
    actual = meta_gradient(network, weight_net, batch, meta_batch, LR)
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name])
    expected = unrolled_gradient(network, weight_net, batch, meta_batch, LR)
    assert difference(actual, expected) < 1e-11


def test_copies_of_buffers() -> None:
    network = Moving()
    copies = buffers_of(network)
    assert len(copies) == len(list(network.buffers()))
    for name, buffer in network.named_buffers():
        assert torch.equal(copies[name], buffer)
        assert copies[name].dtype == buffer.dtype
        copies[name].add_(1)
        assert not torch.equal(copies[name], buffer)


@pytest.mark.parametrize("together", [1, 40, 2**22])
def test_inner_product(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_tensors, "TOGETHER", together)
    torch.manual_seed(0)
    shapes = [(), (5,), (3, 4), (2, 3, 4, 5), (0,), (7,)]
    first, second = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
    first[3] = first[3].contiguous(memory_format=torch.channels_last)
    first[2] = torch.randn(1, 4).double().expand(3, 4)
    expected = sum((a * b).sum() for a, b in zip(first, second, strict=True))
    torch.testing.assert_close(inner_product(first, second), expected)


def test_virtual_step() -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    plain = virtual_step(parameters, gradients, LR)
    for moved, parameter, gradient in zip(plain, parameters, gradients, strict=True):
        assert torch.equal(moved, torch.sub(parameter.detach(), gradient, alpha=LR))
    decayed, other = (
        {"params": [p], "weight_decay": w} for p, w in zip(parameters, (0.5, 0.0), strict=True)
    )
    sgd = torch.optim.SGD([decayed, other], LR)
    first, second = virtual_step(parameters, gradients, LR, sgd)
    torch.testing.assert_close(first, parameters[0].detach() * 0.95 - LR * gradients[0])
    assert torch.equal(second, plain[1])


def test_a_step_does_little_for_each_parameter() -> None:
    """Of 65 parameters and as many buffers: each small operation would be a launch on a GPU."""
    torch.manual_seed(0)
    network, weight_net = timm.create_model("resnet20"), WeightNet()
    sgd = torch.optim.SGD(network.parameters(), LR, momentum=0.9, fused=True)
    adam = torch.optim.Adam(weight_net.parameters())
    pair = images(6, 0, torch.float32)
    with Calls() as calls:
        meta_step(network, weight_net, pair, pair, sgd, adam, LR)
    few = ("sub", "clone", "linalg_vector_norm", "_to_copy", "sum")
    assert sum(calls.seen[name] for name in few) < 20
    assert calls.seen["_foreach_sub"] == 1


@pytest.mark.parametrize("kind", ["network", "head"])
@pytest.mark.parametrize("step", ["meta", "reweight"])
def test_a_checked_step_asks_the_device_for_nothing(kind: str, step: str) -> None:
    """On a GPU the host would wait there. A step that is not checked does ask, and gives the same."""
    answers = []
    for checked in (False, True):
        torch.manual_seed(0)
        pair = images(6, 0, torch.float32)
        network: nn.Module = timm.create_model("resnet20")
        if kind == "head":
            pair = pair[0].flatten(1), pair[1]
            network = feature_head(pair[0], 10)
        weight_net = WeightNet()
        sgd, other = (
            torch.optim.SGD(model.parameters(), LR, fused=True) for model in (network, weight_net)
        )
        options = StepOptions(checked=checked)
        with Calls() as calls:
            if step == "meta":
                meta_step(network, weight_net, pair, pair, sgd, other, LR, options=options)
            else:
                reweight_step(network, pair, pair, sgd, options)
        asked = sum(calls.seen[name] for name in ("_local_scalar_dense", "equal", "nonzero"))
        assert (asked == 0) == checked
        answers.append([parameter.detach() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))
