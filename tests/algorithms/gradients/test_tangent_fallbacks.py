"""Operations beyond the plain ones against double backward, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from meta_reference import difference, unrolled_gradient
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from cwerm.algorithms.gradients.tangents import graph_jvp
from cwerm.algorithms.reweighting.metaweight import WeightNet, meta_gradient, meta_step

CLASSES = 3


class Attention(nn.Module):
    """Heads of width 4 over a sequence of 5 vectors; `heads` of keys and values."""

    def __init__(self, heads: int = 4, bias: bool = False, **kwargs: Any) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 16), nn.Linear(6, 4 * heads)
        self.value, self.output = nn.Linear(6, 4 * heads), nn.Linear(16, CLASSES)
        self.bias = nn.Parameter(torch.randn(1, 4, 5, 5)) if bias else None
        self.kwargs: dict[str, Any] = {"enable_gqa": heads != 4, **kwargs}

    def forward(self, inputs: Tensor) -> Tensor:
        parts = [
            layer(inputs).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        mask = self.kwargs.get("attn_mask", self.bias)
        found = functional.scaled_dot_product_attention(
            *parts, **{**self.kwargs, "attn_mask": mask}
        )
        return self.output(found.transpose(1, 2).flatten(2).mean(1).tanh())


class Reversal(torch.autograd.Function):
    """A number among the arguments, and two outputs, one of them no number."""

    @staticmethod
    def forward(ctx: Any, strength: float, values: Tensor) -> Any:
        ctx.strength = strength
        places = values.argmax(-1)
        ctx.mark_non_differentiable(places)
        return values.view_as(values), places

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Any:
        return None, -ctx.strength * gradient


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, other: Tensor) -> Tensor:
        return values.sign() + other

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, 2 * gradient


class Clipped(torch.autograd.Function):
    """A backward that is no linear map of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp(-0.01, 0.01)


class Layers(nn.Module):
    """Two layers with something between."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(6, 8), nn.Linear(8, CLASSES), between

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.between(self.first(inputs.mean(1)).tanh()))


class Bags(nn.Module):
    def __init__(self, mode: str, weighted: bool = False) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 6, mode=mode, padding_idx=3)
        self.last = nn.Linear(6, CLASSES)
        self.weights = nn.Parameter(torch.rand(5)) if weighted else None

    def forward(self, inputs: Tensor) -> Tensor:
        words = inputs.abs().sum(2).long() % 20
        weights = None if self.weights is None else self.weights.expand(words.shape)
        return self.last(self.bag(words, per_sample_weights=weights).tanh())


class Hooked(Layers):
    """A hook on a tensor changes the gradient on its way."""

    def __init__(self) -> None:
        super().__init__(self.slowed)

    def slowed(self, hidden: Tensor) -> Tensor:
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: 0.1 * gradient)
        return hidden


def backward_hooked() -> nn.Module:
    model = Layers(nn.Tanh())
    model.last.register_full_backward_hook(lambda *_: None)
    return model


MODELS = {
    "grouped queries": lambda: Attention(heads=2),
    "one key head": lambda: Attention(heads=1),
    "grouped and causal": lambda: Attention(heads=2, is_causal=True, scale=0.3),
    "learned bias": lambda: Attention(bias=True),
    "queries that see nothing": lambda: Attention(
        attn_mask=torch.ones(5, 5, dtype=torch.bool).tril(-1)
    ),
    "dropout 0.2 of plain attention": lambda: Attention(dropout_p=0.2),
    "gradient reversal": lambda: Layers(lambda h: Reversal.apply(0.7, h)[0]),
    "straight-through": lambda: Layers(lambda h: StraightThrough.apply(h, h.sin())),
    "the same input twice": lambda: Layers(lambda h: StraightThrough.apply(h, h)),
    "clipping backward": lambda: Layers(Clipped.apply),
    "hook on a tensor": Hooked,
    "backward hook of a module": backward_hooked,
    "bags, sum": lambda: Bags("sum"),
    "bags, mean": lambda: Bags("mean"),
}


def sets(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(size, 5, 6, generator=generator).to(dtype),
            torch.randint(CLASSES, (size,), generator=generator),
        )
        for size in (12, 9)
    ]


def reference(model: nn.Module, net: nn.Module) -> tuple[Tensor, ...]:
    torch.manual_seed(5)
    return unrolled_gradient(model, net, *sets(), 0.3)


# torch cannot differentiate bags twice: they are checked apart
TWICE = [name for name in MODELS if not name.startswith("bags")]


@pytest.mark.parametrize("name", TWICE)
def test_meta_gradients_equal_double_backward(name: str) -> None:
    torch.manual_seed(0)
    model, net = MODELS[name]().double(), WeightNet(1, 8).double()
    torch.manual_seed(5)
    found = meta_gradient(model, net, *sets(), 0.3)
    assert difference(found, reference(model, net)) < 1e-10


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("weighted", [False, True])
def test_embedding_bags_equal_finite_differences(mode: str, weighted: bool) -> None:
    if weighted and mode != "sum":
        pytest.skip("torch weighs sums alone")
    torch.manual_seed(0)
    model = Bags(mode, weighted).double()
    inputs, _ = sets()[0]
    variables = list(model.parameters())
    directions = [torch.randn_like(p) for p in variables]
    found = graph_jvp(model(inputs), variables, directions)
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for p, d in zip(variables, directions, strict=True):
                p.add_(d, alpha=step)
            values.append(model(inputs))
    torch.testing.assert_close(found, (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_a_double_backward_is_told(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, net = Hooked().double(), WeightNet(1, 8).double()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model, net)]
    step = meta_step(model, net, *sets(), *optimizers, 0.3)
    assert step.fallback == "a hook changes gradients"
    model = Layers(nn.Tanh()).double()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model, net)]
    assert meta_step(model, net, *sets(), *optimizers, 0.3).fallback is None


class Once(torch.autograd.Function):
    """A sine whose backward is not to be differentiated."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0].cos()


def test_what_cannot_be_differentiated_twice_is_named() -> None:
    torch.manual_seed(0)
    model, net = Layers(Once.apply).double(), WeightNet(1, 8).double()
    with pytest.raises(
        ValueError, match=r"no exact meta-gradient.*replace that operation"
    ) as raised:
        meta_gradient(model, net, *sets(), 0.3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("heads", [4, 2, 1])
def test_fused_attention_equals_plain(heads: int) -> None:
    torch.manual_seed(0)
    model = Attention(heads).double()
    inputs, variables = sets()[0][0], list(model.parameters())
    directions = [torch.randn_like(p) for p in variables]
    fused = graph_jvp(model(inputs), variables, directions)
    with sdpa_kernel(SDPBackend.MATH):
        plain = graph_jvp(model(inputs), variables, directions)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
