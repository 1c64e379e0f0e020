"""The weight net V and its exact meta-gradient without second-order autograd.

Meta-Weight-Net (Shu et al., 2019) trains V so that a classifier that takes one weighted step on the
training batch does well on a clean meta batch (Eqs. 3 to 7). With theta' = theta - lr/b * sum_i
V(L_i) grad L_i(theta) and g the gradient of the meta loss at theta', the chain rule gives

    dM/dTheta = -lr/b * sum_i dV(L_i)/dTheta * <grad L_i(theta), g>,

and all inner products at once are one forward-mode derivative (Jacobian-vector product) of the
vector of per-sample losses at theta in direction g. So no graph of a graph is built, and
BatchNorm's coupling of the samples is exact.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

__all__ = ["Batch", "MetaBatch", "MetaStep", "WeightNet", "meta_gradient", "meta_step"]

Batch = tuple[Shaped[Tensor, "batch ..."], Int[Tensor, " batch"]]
MetaBatch = tuple[Shaped[Tensor, "meta ..."], Int[Tensor, " meta"]]
Tensors = Mapping[str, Tensor]


class WeightNet(nn.Module):
    """V: maps a sample's loss to its weight in (0, 1) by one hidden ReLU layer and a sigmoid.

    `inputs` is the number of values a sample; the first is its loss.
    """

    def __init__(self, inputs: int = 1, hidden: int = 100) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, losses: Float[Tensor, "batch inputs"]) -> Float[Tensor, " batch"]:
        """Return one weight a sample."""
        return self.output(self.hidden(losses).relu()).sigmoid().squeeze(1)


class MetaStep(NamedTuple):
    """Losses, logits and new weights of the batch; loss and logits of the meta batch at theta'."""

    losses: Float[Tensor, " batch"]
    logits: Float[Tensor, "batch classes"]
    weights: Float[Tensor, " batch"]
    meta_loss: Float[Tensor, ""]
    meta_logits: Float[Tensor, "meta classes"]


def meta_gradient(
    model: nn.Module, weight_net: nn.Module, batch: Batch, meta_batch: MetaBatch, lr: float
) -> tuple[Tensor, ...]:
    """Return the gradient of the meta loss by the parameters of `weight_net`, in their order.

    `batch` and `meta_batch` are pairs of inputs and labels, `lr` is the length of the classifier's
    virtual step. The losses are mean cross entropies, the weights are not normalised in the batch.
    The model runs in the mode it is in; its parameters, buffers and `.grad` stay as they are, and
    only parameters that require a gradient move in the virtual step. Every operation of the model
    needs a forward-mode derivative.
    """
    rng = _RandomState(batch[0].device)
    tensors = {**_trained(model), **_buffers(model)}
    losses, _ = _losses(model, tensors, batch)
    weights = weight_net(losses.detach()[:, None])
    theta = _virtual_step(model, losses, weights, lr, keep_graph=False)
    direction, _, _ = _meta_direction(model, {**tensors, **theta}, meta_batch)
    slopes = _slopes(model, _buffers(model), batch, direction, rng)
    return _weight_net_gradient(weight_net, weights, slopes, lr)


def meta_step(
    model: nn.Module,
    weight_net: nn.Module,
    batch: Batch,
    meta_batch: MetaBatch,
    optimizer: Optimizer,
    weight_optimizer: Optimizer,
    lr: float,
) -> MetaStep:
    """Take one whole step of Meta-Weight-Net: V moves along its meta-gradient, then the classifier.

    `optimizer` holds the parameters of `model` and `weight_optimizer` those of `weight_net`; `lr`
    is the length of the virtual step, as a rule the optimizer's. The one forward at theta serves
    the virtual step and, with the new weights, the real one; running statistics of BatchNorm see it
    once.
    """
    rng = _RandomState(batch[0].device)
    buffers = _buffers(model)
    losses, logits = _losses(model, {}, batch)
    inputs = losses.detach()[:, None]
    weights = weight_net(inputs)
    theta = _virtual_step(model, losses, weights, lr, keep_graph=True)
    moved = {**theta, **_buffers(model)}
    direction, meta_loss, meta_logits = _meta_direction(model, moved, meta_batch)
    slopes = _slopes(model, buffers, batch, direction, rng)
    gradients = _weight_net_gradient(weight_net, weights, slopes, lr)
    _apply(weight_optimizer, list(weight_net.parameters()), gradients)

    with torch.no_grad():
        weights = weight_net(inputs)
    trained = list(_trained(model).values())
    gradients = torch.autograd.grad(losses, trained, weights / len(weights), materialize_grads=True)
    _apply(optimizer, trained, gradients)
    return MetaStep(losses.detach(), logits.detach(), weights, meta_loss, meta_logits)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the buffers: a forward in train mode writes to the ones it is given."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _losses(
    model: nn.Module, tensors: Tensors, batch: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch classes"]]:
    """Per-sample cross entropy and logits, with `tensors` in place of the model's own."""
    inputs, labels = batch
    logits = functional_call(model, dict(tensors), (inputs,))
    return functional.cross_entropy(logits, labels, reduction="none"), logits


def _virtual_step(
    model: nn.Module,
    losses: Float[Tensor, " batch"],
    weights: Float[Tensor, " batch"],
    lr: float,
    keep_graph: bool,
) -> dict[str, Tensor]:
    """theta', one plain gradient step on the weighted losses: leaves of a new graph."""
    trained = _trained(model)
    gradients = torch.autograd.grad(
        losses,
        list(trained.values()),
        weights.detach() / len(weights),
        retain_graph=keep_graph,
        materialize_grads=True,
    )
    return {
        name: torch.sub(parameter.detach(), gradient, alpha=lr).requires_grad_()
        for (name, parameter), gradient in zip(trained.items(), gradients, strict=True)
    }


def _meta_direction(
    model: nn.Module, tensors: Tensors, meta_batch: tuple[Tensor, Tensor]
) -> tuple[dict[str, Tensor], Float[Tensor, ""], Float[Tensor, "meta classes"]]:
    """The gradient of the mean meta loss at theta', by name, the loss and the logits."""
    losses, logits = _losses(model, tensors, meta_batch)
    loss = losses.mean()
    names = list(_trained(model))
    gradients = torch.autograd.grad(loss, [tensors[name] for name in names], materialize_grads=True)
    return dict(zip(names, gradients, strict=True)), loss.detach(), logits.detach()


def _slopes(
    model: nn.Module,
    buffers: Tensors,
    batch: tuple[Tensor, Tensor],
    direction: Tensors,
    rng: _RandomState,
) -> Float[Tensor, " batch"]:
    """The derivative of each loss at theta in `direction`, under the dropout masks of `rng`."""
    _load_forward_mode()
    with torch.no_grad(), rng.replayed(), forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(parameter.detach(), direction[name])
            for name, parameter in _trained(model).items()
        }
        losses, _ = _losses(model, {**duals, **buffers}, batch)
        return forward_ad.unpack_dual(losses).tangent


def _weight_net_gradient(
    weight_net: nn.Module,
    weights: Float[Tensor, " batch"],
    slopes: Float[Tensor, " batch"],
    lr: float,
) -> tuple[Tensor, ...]:
    scale = -lr / len(weights)
    return torch.autograd.grad(weights, list(weight_net.parameters()), scale * slopes)


def _apply(optimizer: Optimizer, parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


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


@cache
def _load_forward_mode() -> None:
    """Enter forward mode once, as torch then loads code that warns of its own deprecated parts."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
