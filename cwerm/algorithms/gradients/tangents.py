"""Forward-mode derivatives along a graph that autograd has already recorded.

Autograd's graph of a forward pass holds, node by node, all that the derivative at that point needs.
Walked from the parameters to the output it gives the Jacobian-vector product without a second
forward: neither activations nor batch statistics nor dropout masks are computed or drawn again.

A node is a linear map from the gradients of its outputs to those of its inputs, u -> J^T u. The
product J t is therefore one vector-Jacobian product of the node itself, which holds for every
differentiable node. Where that is costly or torch does not differentiate the node, it has a rule of
its own here (`tangent_rules`). A `torch.autograd.Function` in Python counts as what its backward says, as
in double backward. Where that is no linear map, or nothing covers a node, there is `NoRuleError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from cwerm.algorithms.gradients.tangent_rules import RULES, Tangent

__all__ = ["NoRuleError", "graph_jvp"]


class NoRuleError(RuntimeError):
    """A node of the graph that neither has a rule nor can be differentiated by itself."""

    def __init__(self, node: Any, reason: str, once: bool = False) -> None:
        self.once = once  # double backward has no answer either
        super().__init__(f"{node.name()}: {reason}")


@torch.no_grad()
def graph_jvp(
    output: Shaped[Tensor, "*shape"], variables: Iterable[Tensor], directions: Iterable[Tensor]
) -> Shaped[Tensor, "*shape"]:
    """Return the derivative of `output` where each variable, a leaf, moves in its direction.

    `output` carries a graph whose buffers are not freed; it stays usable. `NoRuleError` if an operation's
    gradient is not differentiable and has no rule, `ValueError` for dropout inside a fused attention
    kernel, whose mask is not kept. Hooks on tensors are not seen.
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
            known = RULES[node.name()](node, inputs) if node.name() in RULES else None
            for index, tangent in enumerate(_any_node(node, inputs) if known is None else known):
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
    """J t by differentiating u -> J^T u."""
    if callable(node):
        return _transposed_twice(node, tangents, random=False)
    # A backward in Python may be any function of u: for a linear one the values of u do not matter.
    at_zero, elsewhere = (_transposed_twice(node, tangents, random) for random in (False, True))
    for first, other in zip(at_zero, elsewhere, strict=True):
        if (
            first is not None
            and other is not None
            and not torch.allclose(first, other, equal_nan=True)
        ):
            raise NoRuleError(node, "its backward is not linear in the gradient")
        if (first is None) != (other is None):
            raise NoRuleError(node, "its backward is not linear in the gradient")
    return at_zero


def _transposed_twice(node: Any, tangents: Sequence[Tangent], random: bool) -> Sequence[Tangent]:
    with torch.enable_grad():
        # torch's name for a node's outputs in the forward
        covectors = [_covector(output, random) for output in node._input_metadata]
        wanted = [u for u in covectors if u.requires_grad]
        try:
            pulled = node(*covectors) if callable(node) else _python_backward(node, covectors)
            if isinstance(pulled, Tensor):
                pulled = (pulled,)
            # Broadcast inputs: it is the engine that sums the gradient down to their shape.
            pairs = [
                (vector.sum_to_size(tangent.shape).to(tangent.dtype), tangent)
                for vector, tangent in zip(pulled, tangents, strict=True)
                if vector is not None and tangent is not None and vector.requires_grad
            ]
            if not pairs:
                return [None] * len(covectors)
            vectors, known = zip(*pairs, strict=True)
            found = torch.autograd.grad(vectors, wanted, known, allow_unused=True)
        except (RuntimeError, NotImplementedError) as error:
            raise NoRuleError(node, str(error).splitlines()[0]) from error
    if all(part is None for part in found):  # as of `once_differentiable`
        raise NoRuleError(node, "its backward cannot be differentiated", once=True)
    moved = iter(found)
    return [next(moved) if u.requires_grad else None for u in covectors]


def _covector(output: Any, random: bool) -> Tensor:
    shape = torch.Size(output.shape)
    if random:
        numbers = torch.linspace(0.5, 1.5, max(1, shape.numel()), device=output.device)
        made = numbers[: shape.numel()].reshape(shape).to(output.dtype)
    else:
        made = torch.zeros((), dtype=output.dtype, device=output.device).expand(shape)
    differentiable = output.dtype.is_floating_point or output.dtype.is_complex
    return made.requires_grad_() if differentiable else made


def _python_backward(node: Any, covectors: Sequence[Tensor]) -> Sequence[Tangent]:
    """The gradients by the inputs that the node has edges to, of a `torch.autograd.Function`."""
    given = node.apply(*covectors)
    given = given if isinstance(given, tuple) else (given,)
    # `backward` returns one value an argument, edges are there for tensors alone
    needed = iter([g for g, n in zip(given, node.needs_input_grad, strict=False) if n])
    return [None if edge is None else next(needed) for edge, _ in node.next_functions]
