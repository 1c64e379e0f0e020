"""What a step does with all parameters or buffers of a model: few operations for many small tensors.

On a GPU each operation is a launch, which for a small tensor takes longer than the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["buffers_of", "inner_product", "virtual_step"]

TOGETHER = 2**22  # elements of small tensors that are copied to one


def virtual_step(
    parameters: Iterable[Tensor],
    gradients: Iterable[Tensor],
    lr: float,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[Tensor]:
    """theta', one gradient step; with `optimizer`, an SGD, its momentum and weight decay, too."""
    terms: dict[int, tuple[float, Tensor | None, float]] = {}
    if optimizer is not None:
        if not isinstance(optimizer, torch.optim.SGD):
            raise ValueError(
                f"a virtual step like {type(optimizer).__name__}'s is not known: use torch.optim.SGD"
            )
        for group in optimizer.param_groups:
            if group["nesterov"] or group["dampening"]:
                raise ValueError("a virtual step has no nesterov or dampening: set them to 0")
            for parameter in group["params"]:
                buffer = optimizer.state[parameter].get("momentum_buffer")
                terms[id(parameter)] = (group["weight_decay"], buffer, group["momentum"])
    parameters = list(parameters)
    own = [terms.get(id(parameter), (0.0, None, 0.0)) for parameter in parameters]
    theta = [parameter.detach() for parameter in parameters]
    if any(decay for decay, _, _ in own):
        theta = list(torch._foreach_mul(theta, [1 - lr * decay for decay, _, _ in own]))
    theta = list(torch._foreach_sub(theta, list(gradients), alpha=lr))
    for moved, (_, buffer, momentum) in zip(theta, own, strict=True):
        if buffer is not None:
            moved.sub_(buffer, alpha=lr * momentum)
    return theta


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies: a forward in train mode writes to the buffers it is given.

    Those of one type are copied at once.
    """
    copies: dict[str, Tensor] = {}
    alike: dict[tuple[torch.dtype, torch.device], dict[str, Tensor]] = {}
    for name, buffer in model.named_buffers():
        if buffer.layout == torch.strided and buffer.is_contiguous():
            alike.setdefault((buffer.dtype, buffer.device), {})[name] = buffer
        else:
            copies[name] = buffer.clone()
    for buffers in alike.values():
        flat = torch.cat([buffer.view(-1) for buffer in buffers.values()])
        # Views would share a version: a write to one would make autograd refuse all others.
        parts = torch.unsafe_split_with_sizes(flat, [buffer.numel() for buffer in buffers.values()])
        for (name, buffer), part in zip(buffers.items(), parts, strict=True):
            copies[name] = part.view(buffer.shape)
    return copies


def inner_product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The sum of all products. Small tensors are taken together, as each would be some kernels."""
    total = torch.zeros((), dtype=torch.float64, device=first[0].device)
    ends = itertools.accumulate(tensor.numel() for tensor in first)
    pairs = zip(first, second, ends, strict=True)
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[2] // TOGETHER):
        lefts, rights, _ = zip(*group, strict=True)
        products = torch._foreach_mul(lefts, rights)
        # As they lie in memory, in whatever order: new tensors have no gaps.
        flat = [product.as_strided((product.numel(),), (1,)) for product in products]
        total += torch.cat(flat).sum()
    return total
