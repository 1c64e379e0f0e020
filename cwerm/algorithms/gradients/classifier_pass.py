"""A classifier at its present parameters on one batch: losses, gradients, slopes; and at theta'.

The parts from which `meta_step` composes its steps, each of which may run in a lower precision, or on
one rank's share of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cwerm.algorithms.gradients.given_model import (
    check_labels,
    check_logits,
    check_trainable,
    unwrapped,
)
from cwerm.algorithms.gradients.many_tensors import buffers_of, inner_product
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.gradients.tangents import NoRuleError, graph_jvp

# Labels are class numbers, or shares of the classes with one row a sample.
Batch = tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, "batch ..."]]
MetaBatch = tuple[Shaped[Tensor, "meta ..."], Shaped[Tensor, "meta ..."]]
Weigh = Callable[[Tensor], Tensor]
Tensors = Mapping[str, Tensor]

# Of the slopes and the gradient, relative to both lengths; rounding makes up far less.
LARGEST_GAP = 1e-3

NO_EXACT = "the classifier has no exact meta-gradient ({}): replace that operation"


_log = logging.getLogger(__name__)
_told: set[str] = set()


def tell_once(reason: str) -> None:
    """Log that steps take a double backward, once for each reason."""
    if reason not in _told:
        _told.add(reason)
        _log.warning("meta-gradients take a double backward, which is slower: %s", reason)


class ClassifierPass:
    """The forward of a batch at theta, whose graph is kept for gradient and slopes.

    With `keep_buffers` the model's buffers stay as they are, else the forward updates them.

    `fallback` says why exact slopes took a double backward, which is slower and takes more memory: an
    operation without a rule, or a hook that changes gradients; None if they did not.
    """

    def __init__(
        self, model: nn.Module, batch: Batch, options: StepOptions, keep_buffers: bool = False
    ) -> None:
        model = unwrapped(model)
        check_trainable(model)
        self.model, self.options = model, options
        self.fallback: str | None = None
        self.batch, self.size, self.device = batch, len(batch[1]), batch[0].device
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.keep_buffers = keep_buffers
        self._made: tuple[Tensor, Tensor] | None = None

    @property
    def _outputs(self) -> tuple[Tensor, Tensor]:
        """Losses with their graph, and logits."""
        if self._made is None:
            losses, logits = self._forward(
                buffers_of(self.model) if self.keep_buffers else {}, self.batch
            )
            self._made = losses, logits.detach()
        return self._made

    @property
    def losses(self) -> Float[Tensor, " batch"]:
        """Per-sample cross entropy."""
        return self._outputs[0].detach()

    @property
    def logits(self) -> Float[Tensor, "batch classes"]:
        """Outputs of the classifier."""
        return self._outputs[1]

    def gradient(
        self, weigh: Weigh, parameters: Iterable[Tensor], *, last: bool = False
    ) -> list[Tensor]:
        """The gradient of the weighted mean loss; `weigh` gives the weights of losses.

        `last`: nothing more is asked for, so the graph is freed.
        """
        losses = self._outputs[0]
        gradients = torch.autograd.grad(
            losses,
            list(parameters),
            weigh(losses.detach()) / self.size,
            retain_graph=not last,
            materialize_grads=True,
        )
        return self.options.mean_over_ranks(gradients, self.size)

    def slopes(
        self,
        direction: Sequence[Tensor],
        weights: Float[Tensor, " batch"] | None = None,
        gradients: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, " batch"]:
        """The derivative of each loss at theta where the parameters go in `direction`.

        They are those of `gradient` by its weights: at `weights`, of which that gave `gradients`, or
        at 0. That matters only where a backward or a hook is no linear map.
        """
        try:
            slopes = graph_jvp(self._outputs[0], list(self.trained.values()), direction)
        except NoRuleError as missing:
            if missing.once:
                raise ValueError(NO_EXACT.format(missing)) from missing
            return self._double_backward(direction, weights, str(missing))
        if (
            weights is None
            or gradients is None
            or self._agree(slopes, direction, weights, gradients)
        ):
            return slopes
        return self._double_backward(direction, weights, "a hook changes gradients")

    def _agree(
        self,
        slopes: Tensor,
        direction: Sequence[Tensor],
        weights: Tensor,
        gradients: Sequence[Tensor],
    ) -> bool:
        """Whether the gradient goes along `direction` as far as the slopes say: hooks may change it."""
        precise = min(t.dtype.itemsize for t in (*gradients, slopes)) >= 4
        options = self.options
        if (
            options.autocast is not None
            or options.all_reduce_mean
            or options.checked
            or not precise
        ):
            return True
        along = inner_product(gradients, direction)
        lengths = [
            torch.stack(torch._foreach_norm(tensors)).double().norm()
            for tensors in (list(gradients), list(direction))
        ]
        gap = (torch.dot(slopes.double(), weights.double()) / self.size - along).abs()
        return not bool(gap > LARGEST_GAP * lengths[0] * lengths[1])  # not finite: told elsewhere

    def _double_backward(
        self, direction: Sequence[Tensor], weights: Tensor | None, reason: str
    ) -> Float[Tensor, " batch"]:
        """The slopes by differentiating the gradient by the weights of the losses."""
        tell_once(reason)
        self.fallback = reason
        losses = self._outputs[0]
        start = torch.zeros_like(losses) if weights is None else weights.detach() / self.size
        upstream = start.to(losses.dtype).requires_grad_()
        try:
            pulled = torch.autograd.grad(
                losses, list(self.trained.values()), upstream, create_graph=True, allow_unused=True
            )
            pairs = [
                (p, d) for p, d in zip(pulled, direction, strict=True)
                if p is not None and p.requires_grad
            ]  # fmt: skip
            (found,) = torch.autograd.grad(
                [p for p, _ in pairs], upstream, [d for _, d in pairs], materialize_grads=True
            )
        except (RuntimeError, NotImplementedError) as error:
            first = str(error).splitlines()[0]
            raise ValueError(NO_EXACT.format(f"{reason}; double backward: {first}")) from error
        return found

    def meta_direction(
        self, theta: Sequence[Tensor], meta_batch: MetaBatch
    ) -> tuple[list[Tensor], Float[Tensor, ""], Float[Tensor, "meta classes"]]:
        """The gradient of the mean meta loss by `theta`, moved parameters; loss and logits."""
        size = len(meta_batch[1])
        leaves = [parameter.detach().requires_grad_() for parameter in theta]
        tensors = {**dict(zip(self.trained, leaves, strict=True)), **buffers_of(self.model)}
        losses, logits = self._forward(tensors, meta_batch)
        gradients = torch.autograd.grad(losses.sum() / size, leaves, materialize_grads=True)
        direction = self.options.mean_over_ranks(gradients, size)
        return direction, losses.detach().mean(), logits.detach()

    def _forward(self, tensors: Tensors, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Losses and logits of `part` with `tensors` in place of the model's own."""
        dtype = self.options.autocast
        precision: AbstractContextManager[object] = (
            nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)
        )
        with precision:
            logits = functional_call(self.model, dict(tensors), (part[0],))
        logits = check_logits(logits, len(part[1]))
        if not self.options.checked:
            check_labels(part[1], logits.shape[1])
        return functional.cross_entropy(logits, part[1], reduction="none"), logits
