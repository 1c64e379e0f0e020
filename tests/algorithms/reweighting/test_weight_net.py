"""The meta-gradient equals double backward, and a whole step equals the unrolled step."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cwerm.algorithms.gradients.meta_step import meta_gradient, meta_step
from cwerm.algorithms.networks import models  # noqa: F401  (registers resnet20)
from cwerm.algorithms.reweighting.weight_net import WeightNet

Pair = tuple[Tensor, Tensor]


pytestmark = pytest.mark.usefixtures("on_one_thread")


def _resnet(dtype: torch.dtype = torch.float64) -> nn.Module:
    return timm.create_model("resnet20").to(dtype)


def _mlp(dtype: torch.dtype = torch.float64) -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(768, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 10))
    return nn.Sequential(*layers).to(dtype)


def _images(size: int, seed: int, dtype: torch.dtype = torch.float64) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 16, 16, generator=generator).to(dtype)
    return images, torch.randint(10, (size,), generator=generator)


def _meta_loss(
    model: nn.Module, weight_net: nn.Module, batch: Pair, meta_batch: Pair, lr: float
) -> Tensor:
    """The meta loss as a function of V, by unrolling the virtual step."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    logits = functional_call(model, {**parameters, **buffers}, (batch[0],))
    losses = functional.cross_entropy(logits, batch[1], reduction="none")
    loss = (weight_net(losses.detach()[:, None]) * losses).mean()
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), create_graph=True, materialize_grads=True
    )
    theta = {n: p - lr * g for (n, p), g in zip(parameters.items(), gradients, strict=True)}
    logits = functional_call(model, {**theta, **buffers}, (meta_batch[0],))
    return functional.cross_entropy(logits, meta_batch[1])


def _reference(
    model: nn.Module, weight_net: nn.Module, batch: Pair, meta_batch: Pair, lr: float
) -> tuple[Tensor, ...]:
    loss = _meta_loss(model, weight_net, batch, meta_batch, lr)
    return torch.autograd.grad(loss, list(weight_net.parameters()))


def _difference(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in (actual, expected))
    assert b.norm() > 0
    return ((a - b).norm() / b.norm()).item()


def _frozen_stem() -> nn.Module:
    model = _resnet()
    model.stem.requires_grad_(False)
    return model


def _with_unused_layer() -> nn.Module:
    model = _resnet()
    model.unused = nn.Linear(2, 2).double()
    return model


CASES: list[tuple[str, Callable[[], nn.Module], torch.dtype, float]] = [
    ("resnet, float32", lambda: _resnet(torch.float32), torch.float32, 1e-5),
    ("resnet, float64", _resnet, torch.float64, 1e-12),
    ("resnet in eval mode", lambda: _resnet().eval(), torch.float64, 1e-12),
    ("resnet, stem frozen", _frozen_stem, torch.float64, 1e-12),
    ("resnet with an unused layer", _with_unused_layer, torch.float64, 1e-12),
    ("dropout, float32", lambda: _mlp(torch.float32), torch.float32, 1e-5),
    ("dropout, float64", _mlp, torch.float64, 1e-12),
]


@pytest.mark.parametrize(
    ("model", "dtype", "bound"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_meta_gradient_equals_double_backward(
    model: Callable[[], nn.Module], dtype: torch.dtype, bound: float
) -> None:
    # Not 0, where the MLP's gradient nearly cancels: float32 knows it to 1e-5 only, in either way.
    torch.manual_seed(1)
    network, weight_net = model(), WeightNet().to(dtype)
    batch, meta_batch = _images(12, 1, dtype), _images(9, 2, dtype)
    torch.manual_seed(5)
    expected = _reference(network, weight_net, batch, meta_batch, 0.1)
    torch.manual_seed(5)
    actual = meta_gradient(network, weight_net, batch, meta_batch, 0.1)
    assert _difference(actual, expected) < bound


def test_meta_gradient_of_a_linear_model_equals_finite_differences() -> None:
    torch.manual_seed(0)
    model, weight_net = nn.Linear(5, 3).double(), WeightNet(hidden=7).double()
    batch = torch.randn(8, 5).double(), torch.randint(3, (8,))
    meta_batch = torch.randn(6, 5).double(), torch.randint(3, (6,))
    actual = meta_gradient(model, weight_net, batch, meta_batch, 0.5)
    eps = 1e-5
    for parameter, gradient in zip(weight_net.parameters(), actual, strict=True):
        for value, slope in zip(parameter.data.view(-1), gradient.flatten(), strict=True):
            start, losses = value.item(), []
            for sign in (1, -1):
                value.fill_(start + sign * eps)
                losses.append(_meta_loss(model, weight_net, batch, meta_batch, 0.5).item())
            value.fill_(start)
            assert slope.item() == pytest.approx((losses[0] - losses[1]) / (2 * eps), abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    batch_size=st.integers(2, 9),
    meta_size=st.integers(2, 9),
    features=st.integers(1, 6),
    classes=st.integers(2, 5),
    lr=st.floats(0.01, 2),
    seed=st.integers(0, 2**31),
)
def test_meta_gradient_for_any_sizes(
    batch_size: int, meta_size: int, features: int, classes: int, lr: float, seed: int
) -> None:
    torch.manual_seed(seed)
    layers = (nn.Linear(features, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, classes))
    model, weight_net = nn.Sequential(*layers).double(), WeightNet(hidden=8).double()
    batch, meta_batch = (
        (torch.randn(size, features).double(), torch.randint(classes, (size,)))
        for size in (batch_size, meta_size)
    )
    expected = _reference(model, weight_net, batch, meta_batch, lr)
    actual = meta_gradient(model, weight_net, batch, meta_batch, lr)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_meta_gradient_leaves_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    model, weight_net = _resnet(torch.float32), WeightNet()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, versions = copy.deepcopy(model.state_dict()), _versions(model)
    meta_gradient(
        model, weight_net, _images(8, 1, torch.float32), _images(8, 2, torch.float32), 1.0
    )
    assert _versions(model) == versions
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    assert all(p.grad is None for p in weight_net.parameters())


def _versions(model: nn.Module) -> list[int]:
    return [t._version for t in (*model.parameters(), *model.buffers())]


def _optimizers(
    model: nn.Module, weight_net: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    trained = [p for p in model.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, 0.1, momentum=0.9, weight_decay=5e-4)
    return sgd, torch.optim.Adam(weight_net.parameters(), 1e-2)


def _reference_step(
    model: nn.Module,
    weight_net: nn.Module,
    batch: Pair,
    meta_batch: Pair,
    optimizer: torch.optim.Optimizer,
    weight_optimizer: torch.optim.Optimizer,
) -> None:
    weight_optimizer.zero_grad()
    gradients = _reference(model, weight_net, batch, meta_batch, 0.1)
    for parameter, gradient in zip(weight_net.parameters(), gradients, strict=True):
        parameter.grad = gradient
    weight_optimizer.step()
    optimizer.zero_grad()
    losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    (weight_net(losses.detach()[:, None]).detach() * losses).mean().backward()
    optimizer.step()


@pytest.mark.parametrize("model", [_resnet, _frozen_stem])
def test_steps_equal_the_unrolled_steps(model: Callable[[], nn.Module]) -> None:
    """Three steps, as momentum and Adam only show from the second on."""
    torch.manual_seed(0)
    network, weight_net = model(), WeightNet().double()
    other, other_net = copy.deepcopy(network), copy.deepcopy(weight_net)
    ours, theirs = _optimizers(network, weight_net), _optimizers(other, other_net)
    for i in range(3):
        batch, meta_batch = _images(10, i), _images(7, 10 + i)
        _reference_step(other, other_net, batch, meta_batch, *theirs)
        meta_step(network, weight_net, batch, meta_batch, *ours, lr=0.1)
    for a, b in ((network, other), (weight_net, other_net)):
        for name, value in a.state_dict().items():
            torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-9, atol=1e-10)
    assert network.stem[1].num_batches_tracked == 3


def test_step_reports_what_it_saw() -> None:
    torch.manual_seed(0)
    network, weight_net = _resnet(), WeightNet().double()
    batch, meta_batch = _images(10, 0), _images(7, 1)
    logits = copy.deepcopy(network)(batch[0])
    losses = functional.cross_entropy(logits, batch[1], reduction="none")
    meta_loss = _meta_loss(network, weight_net, batch, meta_batch, 0.1)
    step = meta_step(
        network, weight_net, batch, meta_batch, *_optimizers(network, weight_net), lr=0.1
    )
    torch.testing.assert_close(step.logits, logits.detach())
    torch.testing.assert_close(step.losses, losses.detach())
    torch.testing.assert_close(step.weights, weight_net(losses[:, None]).detach())
    torch.testing.assert_close(step.meta_loss, meta_loss.detach())
    expected = functional.cross_entropy(step.meta_logits, meta_batch[1])
    torch.testing.assert_close(step.meta_loss, expected)


def test_dropout_masks_of_a_step_are_those_of_its_forward() -> None:
    """The forward in forward mode replays the masks, and leaves the generator where it was."""
    torch.manual_seed(0)
    network, weight_net = _mlp(), WeightNet().double()
    other, other_net = copy.deepcopy(network), copy.deepcopy(weight_net)
    batch, meta_batch = _images(10, 0), _images(7, 1)
    torch.manual_seed(3)
    gradients = _reference(other, other_net, batch, meta_batch, 0.1)
    after = torch.get_rng_state()
    weight_optimizer = _optimizers(other, other_net)[1]
    for parameter, gradient in zip(other_net.parameters(), gradients, strict=True):
        parameter.grad = gradient
    weight_optimizer.step()
    torch.manual_seed(3)
    meta_step(network, weight_net, batch, meta_batch, *_optimizers(network, weight_net), lr=0.1)
    assert torch.equal(torch.get_rng_state(), after)
    for a, b in zip(weight_net.parameters(), other_net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_weight_net_by_hand() -> None:
    torch.manual_seed(0)
    weight_net, losses = WeightNet(inputs=2, hidden=5), torch.rand(4, 2)
    w1, b1, w2, b2 = weight_net.parameters()
    expected = 1 / (1 + torch.exp(-((losses @ w1.T + b1).clamp(min=0) @ w2[0] + b2)))
    torch.testing.assert_close(weight_net(losses), expected)
    assert sum(p.numel() for p in WeightNet().parameters()) == 301
