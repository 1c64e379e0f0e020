"""The derivative along a recorded graph equals double backward, node by node and model by model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from cwerm.algorithms.gradients.tangents import graph_jvp
from cwerm.algorithms.networks import models  # noqa: F401  (registers resnet20, preactresnet18)

pytestmark = pytest.mark.usefixtures("on_one_thread")


def _reference(output: Tensor, variables: list[Tensor], directions: list[Tensor]) -> Tensor:
    covector = torch.zeros_like(output, requires_grad=True)
    pulled = torch.autograd.grad(
        output, variables, covector, create_graph=True, materialize_grads=True
    )
    return torch.autograd.grad(pulled, covector, directions)[0]


def _check(function: Callable[..., Tensor], *shapes: tuple[int, ...], moved: str = "") -> None:
    """`moved` says by y or n which inputs have a direction; the others are constants."""
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape).double().requires_grad_(each == "y")
        for shape, each in zip(shapes, moved or "y" * len(shapes), strict=True)
    ]
    variables = [tensor for tensor in inputs if tensor.requires_grad]
    directions = [torch.randn_like(tensor) for tensor in variables]
    actual = graph_jvp(function(*inputs), variables, directions)
    with sdpa_kernel(SDPBackend.MATH):
        expected = _reference(function(*inputs), variables, directions)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def _batch_norm(training: bool) -> Callable[..., Tensor]:
    def apply(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        mean, variance = torch.linspace(-1, 1, 4).double(), torch.linspace(1, 2, 4).double()
        return functional.batch_norm(x, mean, variance, scale, shift, training)

    return apply


def _split(x: Tensor) -> Tensor:
    first, second, third = (x * x).unbind(1)
    return first * third + second


def _add_inplace(x: Tensor, y: Tensor) -> Tensor:
    total = x * 2
    total += y
    total[:, 1:3].relu_()
    return total


def _masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.linspace(-1, 1, 25).double().view(5, 5)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


IMAGE, HEADS = (3, 4, 6, 6), (2, 2, 5, 8)
FUNCTIONS: list[tuple[str, Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = [
    ("sum with a constant", lambda x, y: torch.add(x, y, alpha=3) + 1, ((2, 3), (3,))),
    ("in place, on a view", _add_inplace, ((2, 4), (2, 4))),
    ("slices", lambda x: (x * x)[:, 1:-1, ::2, -3:], (IMAGE,)),
    ("negative dimension", lambda x: (x * x).narrow(-1, 1, 2), (IMAGE,)),
    ("padding", lambda x: functional.pad(x, (0, 1, 2, 0)) ** 2, (IMAGE,)),
    ("unbind", _split, ((2, 3, 4),)),
    ("concatenation", lambda x, y: torch.cat([x.expand(3, -1), y * y]), ((1, 4), (2, 4))),
    ("linear", functional.linear, ((3, 4), (5, 4), (5,))),
    ("linear in 3 dimensions", functional.linear, ((2, 3, 4), (5, 4), (5,))),
    ("linear without bias", functional.linear, ((2, 3, 4), (5, 4))),
    ("scaled addmm", lambda *t: torch.addmm(*t, beta=2, alpha=3), ((3, 5), (3, 4), (4, 5))),
    ("convolution", lambda *t: functional.conv2d(*t, stride=2), (IMAGE, (8, 4, 3, 3), (8,))),
    ("groups", lambda x, w: functional.conv2d(x, w, groups=2), (IMAGE, (8, 2, 3, 3))),
    ("transposed", functional.conv_transpose2d, (IMAGE, (4, 2, 3, 3), (2,))),
    ("BatchNorm", _batch_norm(True), (IMAGE, (4,), (4,))),
    ("BatchNorm, eval", _batch_norm(False), (IMAGE, (4,), (4,))),
    ("BatchNorm without scale", _batch_norm(True), (IMAGE,)),
    ("BatchNorm of vectors", _batch_norm(True), ((5, 4), (4,), (4,))),
    ("attention", functional.scaled_dot_product_attention, (HEADS, HEADS, HEADS)),
    ("attention with a mask", _masked, (HEADS, HEADS, HEADS)),
    ("causal attention", _causal, (HEADS, HEADS, HEADS)),
    ("softmax", lambda x: x.softmax(1), ((3, 4),)),
    ("maximum pool", lambda x: functional.max_pool2d(x, 2) ** 2, (IMAGE,)),
]


@pytest.mark.parametrize(("function", "shapes"), [f[1:] for f in FUNCTIONS],
                         ids=[f[0] for f in FUNCTIONS])  # fmt: skip
def test_functions(function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...]) -> None:
    """With all inputs moving, and with each set of them that leaves at least one."""
    for bits in range(1, 2 ** len(shapes)):
        moved = "".join("y" if bits >> i & 1 else "n" for i in range(len(shapes)))
        _check(function, *shapes, moved=moved)


@pytest.mark.parametrize(
    "name",
    [
        "elu",
        "gelu",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "mish",
        "relu",
        "sigmoid",
        "silu",
        "softplus",
        "tanh",
    ],
)
def test_activations_equal_finite_differences(name: str) -> None:
    """Not double backward, which torch does not have for all of them."""
    torch.manual_seed(0)
    x = torch.randn(50).double().requires_grad_()
    direction, step = torch.randn(50).double(), 1e-6
    function = getattr(functional, name)
    actual = graph_jvp(function(x), [x], [direction])
    with torch.no_grad():
        expected = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


SMALL = {"num_classes": 10}
VIT = {**SMALL, "img_size": 16, "patch_size": 8, "depth": 2}
SWIN = {**SMALL, "img_size": 32, "patch_size": 2, "window_size": 4, "depths": (1, 1, 1, 1)}
NETWORKS = [
    ("resnet20", {}),
    ("preactresnet18", {}),
    ("vit_tiny_patch16_224", {**VIT, "drop_rate": 0.1, "proj_drop_rate": 0.1}),
    ("convnext_atto", {**SMALL, "depths": (1, 1, 1, 1), "drop_path_rate": 0.2}),
    ("efficientnet_lite0", SMALL),
    ("mobilenetv3_small_050", SMALL),
    ("swin_tiny_patch4_window7_224", SWIN),
]


@pytest.mark.parametrize(("name", "kwargs"), NETWORKS, ids=[n for n, _ in NETWORKS])
def test_networks(name: str, kwargs: dict[str, object]) -> None:
    """The graph stays usable, and dropout masks are those of the forward."""
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).double()
    size = 16 if name.startswith(("vit", "res", "pre")) else 32
    inputs, labels = torch.randn(4, 3, size, size).double(), torch.arange(4)
    parameters = list(model.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def losses() -> Tensor:
        torch.manual_seed(1)
        return functional.cross_entropy(model(inputs), labels, reduction="none")

    recorded = losses()
    actual = graph_jvp(recorded, parameters, directions)
    covector = torch.randn_like(recorded)
    pulled = torch.autograd.grad(recorded, parameters, covector)
    # The transpose is an independent check: <u, J t> = <J^T u, t>.
    inner = sum((p * d).sum() for p, d in zip(pulled, directions, strict=True))
    torch.testing.assert_close(covector @ actual, inner, rtol=1e-9, atol=1e-9)
    if not name.startswith("mobilenetv3"):  # hardsigmoid has no double backward
        with sdpa_kernel(SDPBackend.MATH):
            expected = _reference(losses(), parameters, directions)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_an_output_that_no_variable_reaches_stands_still() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    assert torch.equal(graph_jvp(x * 2, [y], [torch.ones(3)]), torch.zeros(3))


def test_tangents_are_freed_on_the_way() -> None:
    """A deep chain holds a few tangents, not one a layer."""
    x = torch.randn(100_000, requires_grad=True)
    output = x
    for _ in range(50):
        output = output.tanh()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as trace:
        graph_jvp(output, [x], [torch.ones_like(x)])
    held = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak <= 4 * 400_000


def test_module_with_shared_weights() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).double()
    x = torch.randn(3, 4).double()
    directions = [torch.randn_like(p) for p in layer.parameters()]
    output = layer(layer(x).relu())
    parameters = list(layer.parameters())
    actual = graph_jvp(output, parameters, directions)
    torch.testing.assert_close(actual, _reference(output, parameters, directions))
