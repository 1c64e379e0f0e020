"""Forward-mode derivatives along a graph that autograd has already recorded.

Autograd's graph of a forward pass holds, node by node, all that the derivative at that point needs.
Walked from the parameters to the output it gives the Jacobian-vector product without a second
forward: neither activations nor batch statistics nor dropout masks are computed or drawn again.

A node is a linear map from the gradients of its outputs to those of its inputs, u -> J^T u. The
product J t is therefore one vector-Jacobian product of the node itself, which holds for every
differentiable node. Where that is costly or torch does not differentiate the node, it has a rule of
its own here. What the nodes hold is documented under "Saved tensors" in torch's autograd notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor

__all__ = ["graph_jvp"]

Tangent: TypeAlias = Tensor | None  # None: zero
Rule: TypeAlias = Callable[[Any, Sequence[Tangent]], Sequence[Tangent]]


@torch.no_grad()
def graph_jvp(
    output: Shaped[Tensor, "*shape"], variables: Iterable[Tensor], directions: Iterable[Tensor]
) -> Shaped[Tensor, "*shape"]:
    """Return the derivative of `output` where each variable, a leaf, moves in its direction.

    `output` carries a graph whose buffers are not freed; it stays usable. `RuntimeError` of torch
    if an operation's gradient is not differentiable and has no rule here, `ValueError` for dropout
    inside a fused attention kernel, whose mask is not kept.
    """
    leaves = {id(v): d for v, d in zip(variables, directions, strict=True)}
    nodes = _in_order(output.grad_fn)
    uses = Counter(edge for node in nodes for edge in node.next_functions)
    tangents: dict[tuple[Any, int], Tangent] = {}
    for node in nodes:
        if hasattr(node, "variable"):  # the node that stands for a leaf
            tangents[node, 0] = leaves.get(id(node.variable))
            continue
        inputs = [tangents.get(edge) for edge in node.next_functions]
        if any(tangent is not None for tangent in inputs):
            for index, tangent in enumerate(RULES.get(node.name(), _any_node)(node, inputs)):
                tangents[node, index] = tangent
        del inputs
        for edge in node.next_functions:
            uses[edge] -= 1
            if uses[edge] == 0:  # frees the tangent, as no later node needs it
                tangents.pop(edge, None)
    tangent = tangents.get((output.grad_fn, output.output_nr))
    return torch.zeros_like(output) if tangent is None else tangent


def _in_order(last: Any) -> list[Any]:
    """All nodes that `last` depends on and itself, each after those it depends on."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(last, False)]
    while stack:
        node, dependencies_done = stack.pop()
        if dependencies_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(before, False) for before, _ in node.next_functions if before is not None]
    return order


def _any_node(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """J t by differentiating u -> J^T u; the values of u do not matter."""
    with torch.enable_grad():
        covectors = [
            torch.zeros((), dtype=output.dtype, device=output.device)
            .expand(output.shape)
            .requires_grad_()
            for output in node._input_metadata  # torch's name for a node's outputs in the forward
        ]
        pulled = node(*covectors)
        if isinstance(pulled, Tensor):
            pulled = (pulled,)
        # Broadcast inputs: it is the engine that sums the gradient down to their shape.
        pairs = [
            (vector.sum_to_size(tangent.shape).to(tangent.dtype), tangent)
            for vector, tangent in zip(pulled, tangents, strict=True)
            if vector is not None and tangent is not None
        ]
    vectors, known = zip(*pairs, strict=True)
    return torch.autograd.grad(vectors, covectors, known, allow_unused=True)


def _elementwise(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """J is diagonal: J t = J^T t."""
    return (node(tangents[0]),)


def _add(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    first, second = tangents
    if first is None or second is None:
        return _any_node(node, tangents)
    return (torch.add(first, second, alpha=node._saved_alpha),)


def _slice(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    assert tangents[0] is not None
    index = [slice(None)] * tangents[0].ndim
    # Torch stores negative numbers as their unsigned twins.
    start, end = (_signed(bound) for bound in (node._saved_start, node._saved_end))
    index[_signed(node._saved_dim)] = slice(start, end, node._saved_step)
    return (tangents[0][tuple(index)],)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _convolution(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    inputs, weight, bias = tangents
    geometry = (
        node._saved_stride,
        node._saved_padding,
        node._saved_dilation,
        node._saved_transposed,
        node._saved_output_padding,
        node._saved_groups,
    )
    if weight is None and bias is not None:
        weight = torch.zeros_like(node._saved_weight)
    by_weight = by_inputs = None
    if weight is not None:
        by_weight = torch.convolution(node._saved_input, weight, bias, *geometry)
    if inputs is not None:
        by_inputs = torch.convolution(inputs, node._saved_weight, None, *geometry)
    return (_total(by_weight, by_inputs),)


def _addmm(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    bias, first, second = tangents
    total = None
    if first is not None:
        total = torch.mm(first, node._saved_mat2).mul_(node._saved_alpha)
    if second is not None:
        total = _total(torch.mm(node._saved_mat1, second).mul_(node._saved_alpha), total)
    if bias is None:
        return (total,)
    if total is None:
        return _any_node(node, tangents)
    return (total.add_(bias, alpha=node._saved_beta),)


def _batch_norm(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """By its input, J is symmetric; by scale and shift, the output is linear."""
    inputs, scale, shift = tangents
    x, training = node._saved_input, node._saved_training
    mean, inverse = node._saved_result1, node._saved_result2
    running_mean, running_var = node._saved_running_mean, node._saved_running_var
    eps = node._saved_epsilon if hasattr(node, "_saved_epsilon") else node._saved_eps
    total = None
    if inputs is not None:
        total = torch.ops.aten.native_batch_norm_backward(
            inputs, x, node._saved_weight, running_mean, running_var, mean, inverse, training, eps,
            [True, False, False],
        )[0]  # fmt: skip
    if scale is None and shift is None:
        return (total,)
    if not training:
        mean, inverse = running_mean, (running_var + eps).rsqrt()
    slope = torch.zeros_like(inverse) if scale is None else inverse * scale
    constant = -mean * slope if shift is None else shift - mean * slope
    view = (-1, *[1] * (x.ndim - 2))
    if total is None:
        total = torch.zeros_like(x)
    return (total.add_(constant.to(x.dtype).view(view)).addcmul_(x, slope.to(x.dtype).view(view)),)


def _attention(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """Attention in a fused kernel, of which torch has no second derivative."""
    if node._saved_dropout_p:
        raise ValueError(
            "dropout inside fused attention cannot be repeated: set the model's attn_drop_rate to "
            "0, or train under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        )
    query, key, value = node._saved_query, node._saved_key, node._saved_value
    scale = query.shape[-1] ** -0.5 if node._saved_scale is None else node._saved_scale
    scores = query @ key.mT * scale
    mask = getattr(node, "_saved_attn_mask", getattr(node, "_saved_attn_bias", None))
    if mask is not None:
        scores += mask
    if node._saved_is_causal:
        above = torch.ones_like(scores, dtype=torch.bool).triu(1)
        scores.masked_fill_(above, float("-inf"))
    shares = scores.softmax(-1)
    by_query, by_key, by_value = tangents[:3]
    slopes = None
    if by_query is not None:
        slopes = by_query @ key.mT
    if by_key is not None:
        slopes = _total(query @ by_key.mT, slopes)
    total = None if by_value is None else shares @ by_value
    if slopes is not None:
        slopes = shares * slopes * scale
        slopes = slopes - shares * slopes.sum(-1, keepdim=True)
        total = _total(slopes @ value, total)
    return (total,)


def _total(first: Tangent, second: Tangent) -> Tangent:
    """The sum; writes to the first, which the caller owns."""
    if first is None or second is None:
        return second if first is None else first
    return first.add_(second)


RULES: dict[str, Rule] = {
    "AddBackward0": _add,
    "AddmmBackward0": _addmm,
    "ConvolutionBackward0": _convolution,
    "CudnnBatchNormBackward0": _batch_norm,
    "NativeBatchNormBackward0": _batch_norm,
    "ScaledDotProductEfficientAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionForCpuBackward0": _attention,
    "SliceBackward0": _slice,
    **{
        f"{name}Backward0": _elementwise
        for name in [
            "Elu",
            "Gelu",
            "Hardsigmoid",
            "Hardswish",
            "Hardtanh",
            "LeakyRelu",
            "Mish",
            "Relu",
            "Sigmoid",
            "Silu",
            "Softplus",
            "Tanh",
        ]
    },
}
