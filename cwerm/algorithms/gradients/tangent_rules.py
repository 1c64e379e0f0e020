"""How single operations carry a tangent forward: the rules of `tangents`.

A rule gets a node of autograd's graph and the tangents of its inputs, None for those that do not move,
and returns those of its outputs; or None where it does not cover the case, which is then differentiated as
any other node. What the nodes hold is documented under "Saved tensors" in torch's autograd notes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["RULES", "Rule", "Tangent"]

Tangent: TypeAlias = Tensor | None  # None: zero
Rule: TypeAlias = Callable[[Any, Sequence[Tangent]], Sequence[Tangent] | None]


MAX_MODE = 2  # of torch's embedding bags, after sum and mean


def _elementwise(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """J is diagonal: J t = J^T t."""
    return (node(tangents[0]),)


def _add(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent] | None:
    first, second = tangents
    if first is None or second is None:
        return None
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


def _addmm(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent] | None:
    bias, first, second = tangents
    total = None
    if first is not None:
        total = torch.mm(first, node._saved_mat2).mul_(node._saved_alpha)
    if second is not None:
        total = _total(torch.mm(node._saved_mat1, second).mul_(node._saved_alpha), total)
    if bias is None:
        return (total,)
    if total is None:
        return None
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
    start = torch.zeros_like(mean) if shift is None else shift
    constant = torch.addcmul(start, mean, slope, value=-1)
    view = (-1, *[1] * (x.ndim - 2))
    if total is None:
        total = torch.zeros_like(x)
    return (total.add_(constant.to(x.dtype).view(view)).addcmul_(x, slope.to(x.dtype).view(view)),)


def _attention(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent]:
    """Attention in a fused kernel, of which torch has no second derivative.

    All kernels compute softmax(scale * q k^T + bias) v. Which of the four move depends on the kernel; a bias
    moves in the memory-efficient one alone, the others leave a learned one to plain operations.
    """
    if node._saved_dropout_p:
        raise ValueError(
            "dropout inside fused attention cannot be repeated: set the model's attn_drop_rate to "
            "0, or train under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
        )
    query = node._saved_query
    scale = query.shape[-1] ** -0.5 if node._saved_scale is None else node._saved_scale
    key, value = (_for_all_heads(part, query) for part in (node._saved_key, node._saved_value))
    scores = query @ key.mT * scale
    mask = getattr(node, "_saved_attn_mask", getattr(node, "_saved_attn_bias", None))
    if mask is not None:
        scores += mask
    if node._saved_is_causal:
        above = torch.ones_like(scores, dtype=torch.bool).triu(1)
        scores.masked_fill_(above, float("-inf"))
    # of a query that may look at nothing all kernels make 0
    shares = scores.softmax(-1).masked_fill_((scores == float("-inf")).all(-1, keepdim=True), 0)
    by_query, by_key, by_value = tangents[:3]
    slopes = None
    if by_query is not None:
        slopes = by_query @ key.mT * scale
    if by_key is not None:
        slopes = _total(query @ _for_all_heads(by_key, query).mT * scale, slopes)
    if len(tangents) > 3 and tangents[3] is not None:
        slopes = _total(tangents[3].expand_as(scores).clone(), slopes)
    total = None if by_value is None else shares @ _for_all_heads(by_value, query)
    if slopes is not None:
        slopes = shares * slopes
        slopes = slopes - shares * slopes.sum(-1, keepdim=True)
        total = _total(slopes @ value, total)
    return (total,)


def _for_all_heads(part: Tensor, query: Tensor) -> Tensor:
    """Keys or values of grouped-query attention, repeated for the query heads that share them."""
    groups = query.shape[-3] // part.shape[-3]
    return part if groups == 1 else part.repeat_interleave(groups, dim=-3)


def _embedding_bag(node: Any, tangents: Sequence[Tangent]) -> Sequence[Tangent] | None:
    """Linear in the table, and in the weights of the entries."""
    by_table, by_weights = tangents[0], tangents[-1] if len(tangents) > 1 else None
    offsets, mode = node._saved_offsets, node._saved_mode
    if node._saved_scale_grad_by_freq:
        return None
    if mode == MAX_MODE:
        rows = node._saved_result3
        moved = None if by_table is None else by_table.gather(0, rows.clamp(min=0))
        return (None if moved is None else moved.masked_fill_(rows < 0, 0),)
    moving = [] if by_table is None else [(by_table, node._saved_per_sample_weights)]
    if by_weights is not None:
        moving.append((node._saved_weight, by_weights))
    ends_given = node._input_metadata[0].shape[0] < len(offsets)
    total = None
    for table, factors in moving:
        bags = torch.ops.aten._embedding_bag(
            table, node._saved_indices, offsets, False, mode, False, factors, ends_given,
            _signed(node._saved_padding_idx),
        )[0]  # fmt: skip
        total = _total(bags, total)
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
    "EmbeddingBagBackward0": _embedding_bag,
    "ScaledDotProductCudnnAttentionBackward0": _attention,
    "ScaledDotProductEfficientAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionForCpuBackward0": _attention,
    "ScaledDotProductFusedAttentionOverrideableBackward0": _attention,
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
