"""One step of Meta-Weight-Net with its exact meta-gradient, without second-order autograd.

Meta-Weight-Net (Shu et al., 2019) trains V so that a classifier that takes one weighted step on the
training batch does well on a clean meta batch (Eqs. 3 to 7). With theta' = theta - lr/b * sum_i
V(L_i) grad L_i(theta) and g the gradient of the meta loss at theta', the chain rule gives

    dM/dTheta = -lr/b * sum_i dV(L_i)/dTheta * <grad L_i(theta), g>,

and all inner products at once are the Jacobian-vector product of the vector of per-sample losses at
theta in direction g (`tangents`), which also holds where BatchNorm couples the samples. One forward
at theta serves the virtual step, these slopes and the real update. Where a forward costs 1 and a
backward 2, a plain step costs 3, and this one 1 + 2 (virtual), 3 (meta), 2 (slopes) and 2 (update).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from cwerm.algorithms.classifier_pass import (
    Batch,
    ClassifierPass,
    MetaBatch,
    virtual_step,
)
from cwerm.algorithms.step_options import StepOptions
from cwerm.algorithms.weight_net import net_inputs

__all__ = ["MetaStep", "StepOptions", "meta_gradient", "meta_step"]

Extra = Float[Tensor, "batch columns"]


class MetaStep(NamedTuple):
    """Losses, logits and new weights of the batch; loss and logits of the meta batch at theta'.

    The last two are None in a step without a meta batch.
    """

    losses: Float[Tensor, " batch"]
    logits: Float[Tensor, "batch classes"]
    weights: Float[Tensor, " batch"]
    meta_loss: Float[Tensor, ""] | None = None
    meta_logits: Float[Tensor, "meta classes"] | None = None


def meta_gradient(
    model: nn.Module,
    weight_net: nn.Module,
    batch: Batch,
    meta_batch: MetaBatch,
    lr: float,
    *,
    extra: Extra | None = None,
    optimizer: Optimizer | None = None,
    options: StepOptions | None = None,
) -> tuple[Tensor, ...]:
    """Return the gradient of the meta loss by the parameters of `weight_net`, in their order.

    `batch` and `meta_batch` are pairs of inputs and labels, `lr` is the length of the classifier's
    virtual step. The losses are mean cross entropies, the weights are not normalised in the batch.
    `extra` holds further inputs of the weight net beside the loss. The model runs in the mode it is
    in; its parameters, buffers and `.grad` stay as they are, and only parameters that require a
    gradient move in the virtual step. With `optimizer`, an SGD over the model's parameters, its
    momentum and weight decay are part of the virtual step.
    """
    forward = ClassifierPass(model, batch, options or StepOptions(), keep_buffers=True)
    return _meta_gradient(forward, weight_net, meta_batch, lr, extra, optimizer)[0]


def meta_step(
    model: nn.Module,
    weight_net: nn.Module,
    batch: Batch,
    meta_batch: MetaBatch | None,
    optimizer: Optimizer,
    weight_optimizer: Optimizer,
    lr: float,
    *,
    extra: Extra | None = None,
    options: StepOptions | None = None,
) -> MetaStep:
    """Take one whole step of Meta-Weight-Net: V moves along its meta-gradient, then the classifier.

    `optimizer` holds the parameters of `model` and `weight_optimizer` those of `weight_net`; `lr`
    is the length of the virtual step, as a rule the optimizer's. Running statistics of BatchNorm
    see the batch once. Without a meta batch V stays and the step is a plain weighted one. See also
    `meta_gradient` and `StepOptions`.
    """
    options = options or StepOptions()
    forward = ClassifierPass(model, batch, options)
    meta_loss = meta_logits = None
    if meta_batch is not None:
        followed = optimizer if options.like_optimizer else None
        gradients, meta_loss, meta_logits = _meta_gradient(
            forward, weight_net, meta_batch, lr, extra, followed
        )
        apply_gradients(weight_optimizer, list(weight_net.parameters()), gradients)
    trained = list(forward.trained.values())
    weigh = _Weigher(weight_net, extra)
    apply_gradients(optimizer, trained, forward.gradient(weigh, trained, last=True))
    losses = forward.losses
    weights = weigh(losses, slice(None))
    return MetaStep(losses, forward.logits, weights, meta_loss, meta_logits)


def apply_gradients(
    optimizer: Optimizer, parameters: Iterable[Tensor], gradients: Iterable[Tensor]
) -> None:
    """One step of the optimizer with these gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


def _meta_gradient(
    forward: ClassifierPass,
    weight_net: nn.Module,
    meta_batch: MetaBatch,
    lr: float,
    extra: Extra | None,
    optimizer: Optimizer | None,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The gradient by the weight net's parameters, and the meta batch's loss and logits."""
    moved = list(forward.moved.values())
    gradients = forward.gradient(_Weigher(weight_net, extra), moved)
    theta = virtual_step(moved, gradients, lr, optimizer)
    del gradients
    direction, meta_loss, meta_logits = forward.meta_direction(theta, meta_batch)
    del theta
    slopes = forward.slopes(direction)
    weights = weight_net(net_inputs(forward.losses, extra))
    means = torch.autograd.grad(
        weights, list(weight_net.parameters()), slopes * (-lr / len(slopes))
    )
    means = tuple(forward.options.mean_over_ranks(means, len(slopes)))
    return means, meta_loss, meta_logits


class _Weigher:
    """The weight net as a function of losses and the rows of the batch they belong to."""

    def __init__(self, weight_net: nn.Module, extra: Extra | None) -> None:
        self.weight_net, self.extra = weight_net, extra

    @torch.no_grad()
    def __call__(self, losses: Tensor, rows: slice) -> Tensor:
        extra = None if self.extra is None else self.extra[rows]
        return self.weight_net(net_inputs(losses, extra))
