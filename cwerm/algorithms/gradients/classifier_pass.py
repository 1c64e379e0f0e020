"""A classifier at its present parameters on one batch: losses, gradients, slopes; and at theta'.

The parts from which `meta_step` composes its steps, each of which may run in micro-batches, in a
lower precision, or on one rank's share of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

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
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.gradients.tangents import NoRuleError, graph_jvp

# Labels are class numbers, or shares of the classes with one row a sample.
Batch = tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, "batch ..."]]
MetaBatch = tuple[Shaped[Tensor, "meta ..."], Shaped[Tensor, "meta ..."]]
Weigh = Callable[[Tensor, slice], Tensor]
Tensors = Mapping[str, Tensor]

# Of the slopes and the gradient, relative to both lengths; rounding makes up far less.
LARGEST_GAP = 1e-3

NO_EXACT = "the classifier has no exact meta-gradient ({}): use StepOptions(slopes='central')"

# Length of the steps of finite differences, in units of the parameters.
STEP = 1e-3


_log = logging.getLogger(__name__)
_told: set[str] = set()


def tell_once(reason: str) -> None:
    """Log that steps take a double backward, once for each reason."""
    if reason not in _told:
        _told.add(reason)
        _log.warning("meta-gradients take a double backward, which is slower: %s", reason)


class ClassifierPass:
    """The forward of a batch at theta, in parts whose graph is kept or made again on each pass.

    `losses` and `logits` are known after the first pass. With `keep_buffers` the model's buffers
    stay as they are, else the first pass updates them.

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
        self.size, self.device = len(batch[1]), batch[0].device
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.moved = _last_layer(model, self.trained) if options.last_layer else self.trained
        self.parts = _parts(batch, options.micro_batches)
        self.keep_buffers = keep_buffers
        self._buffers = _buffers(model)
        self._first = True
        self._kept: Tensor | None = None
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []

    @property
    def losses(self) -> Float[Tensor, " batch"]:
        """Per-sample cross entropy."""
        return torch.cat(self._losses)

    @property
    def logits(self) -> Float[Tensor, "batch classes"]:
        """Outputs of the classifier."""
        return torch.cat(self._logits)

    def gradient(
        self, weigh: Weigh, parameters: Iterable[Tensor], *, last: bool = False
    ) -> list[Tensor]:
        """The gradient of the weighted mean loss; `weigh` gives the weights of losses at rows.

        `last`: no further pass follows, so the graph is freed.
        """
        parameters, total = list(parameters), None
        for rows, losses in self._passed():
            gradients = torch.autograd.grad(
                losses,
                parameters,
                weigh(losses.detach(), rows) / self.size,
                retain_graph=self._kept is not None and not last,
                materialize_grads=True,
            )
            total = _add(total, gradients)
        assert total is not None
        return self.options.mean_over_ranks(total, self.size)

    def slopes(
        self,
        direction: Sequence[Tensor],
        weights: Float[Tensor, " batch"] | None = None,
        gradients: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, " batch"]:
        """The derivative of each loss at theta where the moved parameters go in `direction`.

        They are those of `gradient` by its weights: at `weights`, of which that gave `gradients`, or
        at 0. That matters only where a backward or a hook is no linear map.
        """
        if self.options.slopes == "exact":
            return self._exact_slopes(direction, weights, gradients)
        if self._first:
            list(self._passed())
        step = STEP / torch.cat([d.flatten() for d in direction]).norm().clamp(min=1e-30)
        above = self._losses_at(direction, step)
        if self.options.slopes == "forward":
            return (above - self.losses) / step
        return (above - self._losses_at(direction, -step)) / (2 * step)

    def _exact_slopes(
        self,
        direction: Sequence[Tensor],
        weights: Tensor | None,
        gradients: Sequence[Tensor] | None,
    ) -> Float[Tensor, " batch"]:
        variables = list(self.moved.values())
        try:
            slopes = torch.cat(
                [graph_jvp(loss, variables, direction) for _, loss in self._passed()]
            )
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
        if self.options.autocast is not None or self.options.all_reduce_mean or not precise:
            return True
        along = sum(torch.sum(g * d).double() for g, d in zip(gradients, direction, strict=True))
        lengths = [
            torch.stack([torch.linalg.vector_norm(t).double() for t in tensors]).norm()
            for tensors in (gradients, direction)
        ]
        gap = (torch.dot(slopes.double(), weights.double()) / self.size - along).abs()
        return not bool(gap > LARGEST_GAP * lengths[0] * lengths[1])  # not finite: told elsewhere

    def _double_backward(
        self, direction: Sequence[Tensor], weights: Tensor | None, reason: str
    ) -> Float[Tensor, " batch"]:
        """The slopes by differentiating the gradient by the weights of the losses."""
        tell_once(reason)
        self.fallback = reason
        slopes = []
        variables = list(self.moved.values())
        for rows, losses in self._passed():
            start = (
                torch.zeros_like(losses) if weights is None else weights[rows].detach() / self.size
            )
            upstream = start.to(losses.dtype).requires_grad_()
            try:
                pulled = torch.autograd.grad(
                    losses, variables, upstream, create_graph=True, allow_unused=True
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
            slopes.append(found)
        return torch.cat(slopes)

    def meta_direction(
        self, theta: Sequence[Tensor], meta_batch: MetaBatch
    ) -> tuple[list[Tensor], Float[Tensor, ""], Float[Tensor, "meta classes"]]:
        """The gradient of the mean meta loss by `theta`, the moved parameters; loss and logits."""
        size, total, losses, logits = len(meta_batch[1]), None, [], []
        fixed = {name: p.detach() for name, p in self.trained.items()}
        leaves = [parameter.detach().requires_grad_() for parameter in theta]
        tensors = {
            **fixed, **dict(zip(self.moved, leaves, strict=True)), **_buffers(self.model)
        }  # fmt: skip
        for _, part in _parts(meta_batch, self.options.micro_batches):
            loss, outputs = self._forward(tensors, part)
            gradients = torch.autograd.grad(loss.sum() / size, leaves, materialize_grads=True)
            total = _add(total, gradients)
            losses.append(loss.detach())
            logits.append(outputs.detach())
            del loss, outputs
        assert total is not None
        direction = self.options.mean_over_ranks(total, size)
        return direction, torch.cat(losses).mean(), torch.cat(logits)

    def _passed(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and losses of each part, with a graph."""
        if self._kept is not None:
            yield self.parts[0][0], self._kept
            return
        first, self._first = self._first, False
        if first:
            self._rng = _RandomState(self.device)
        tensors = {} if first and not self.keep_buffers else _copies(self._buffers)
        keep = len(self.parts) == 1 and (self.options.keep_graph or not first)
        with nullcontext() if first else self._rng.replayed():
            for rows, part in self.parts:
                losses, logits = self._forward(tensors, part)
                if first:
                    self._losses.append(losses.detach())
                    self._logits.append(logits.detach())
                if keep:
                    self._kept = losses
                yield rows, losses

    def _forward(self, tensors: Tensors, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Losses and logits of `part` with `tensors` in place of the model's own."""
        dtype = self.options.autocast
        precision: AbstractContextManager[object] = (
            nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)
        )
        with precision:
            logits = functional_call(self.model, dict(tensors), (part[0],))
        logits = check_logits(logits, len(part[1]))
        # on a GPU the test waits for all that runs there, so loops go without it
        if self.keep_buffers or self.device.type == "cpu":
            check_labels(part[1], logits.shape[1])
        return functional.cross_entropy(logits, part[1], reduction="none"), logits

    @torch.no_grad()
    def _losses_at(self, direction: Sequence[Tensor], step: Tensor) -> Float[Tensor, " batch"]:
        tensors = {
            name: parameter + step * d
            for (name, parameter), d in zip(self.moved.items(), direction, strict=True)
        }
        tensors.update(_copies(self._buffers))
        with self._rng.replayed():
            return torch.cat([self._forward(tensors, part)[0] for _, part in self.parts])


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
    theta = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        decay, buffer, momentum = terms.get(id(parameter), (0.0, None, 0.0))
        moved = parameter.detach() * (1 - lr * decay) if decay else parameter.detach()
        moved = torch.sub(moved, gradient, alpha=lr)
        theta.append(moved if buffer is None else moved.sub_(buffer, alpha=lr * momentum))
    return theta


def _last_layer(model: nn.Module, trained: Tensors) -> dict[str, Tensor]:
    last = list(trained)[-1].rpartition(".")[0]
    return {name: p for name, p in trained.items() if name.rpartition(".")[0] == last}


def _parts(batch: tuple[Tensor, Tensor], count: int) -> list[tuple[slice, tuple[Tensor, Tensor]]]:
    parts, start = [], 0
    for inputs, labels in zip(*(t.tensor_split(count) for t in batch), strict=True):
        parts.append((slice(start, start + len(labels)), (inputs, labels)))
        start += len(labels)
    return parts


def _add(total: list[Tensor] | None, terms: Iterable[Tensor]) -> list[Tensor]:
    if total is None:
        return list(terms)
    return [a.add_(b) for a, b in zip(total, terms, strict=True)]


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies: a forward in train mode writes to the buffers it is given."""
    return _copies(dict(model.named_buffers()))


def _copies(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


class _RandomState:
    """The state of the global generators, so that a second forward draws the same dropout masks."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
