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
from torch.func import functional_call
from torch.optim import Optimizer

from cwerm.algorithms.gradients.classifier_pass import (
    Batch,
    ClassifierPass,
    MetaBatch,
)
from cwerm.algorithms.gradients.given_model import (
    as_batch,
    check_trainable,
    floating_type,
    one_weight_a_loss,
    unwrapped,
)
from cwerm.algorithms.gradients.head_pass import pass_of
from cwerm.algorithms.gradients.many_tensors import virtual_step
from cwerm.algorithms.gradients.step_options import StepOptions
from cwerm.algorithms.inputs import Given
from cwerm.algorithms.reweighting.weight_net import net_inputs
from cwerm.algorithms.torch_state import default_device, plain_torch

__all__ = ["MetaStep", "StepOptions", "meta_gradient", "meta_step"]

Extra = Float[Tensor, "batch columns"]


class MetaStep(NamedTuple):
    """Losses, logits and new weights of the batch; loss and logits of the meta batch at theta'.

    The latter are None in a step without a meta batch. `fallback` says why the step took a double
    backward, which is slower; None if it did not.
    """

    losses: Float[Tensor, " batch"]
    logits: Float[Tensor, "batch classes"]
    weights: Float[Tensor, " batch"]
    meta_loss: Float[Tensor, ""] | None = None
    meta_logits: Float[Tensor, "meta classes"] | None = None
    fallback: str | None = None


def meta_gradient(
    model: nn.Module,
    weight_net: nn.Module,
    batch: tuple[Given, Given],
    meta_batch: tuple[Given, Given],
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

    Labels are class numbers or, as float [batch, classes], shares of each class. Frozen and unused
    parameters of the weight net have gradient 0, and dropout in it is drawn once. `torch.no_grad`,
    `inference_mode` and `autocast` around the call do not matter (`options` sets autocast), and a
    compiled model runs uncompiled. An operation that neither has a rule nor is differentiable by
    itself, or a hook that changes gradients, makes this a double backward, slower and with more memory;
    that is logged once. `ValueError` in one line for what cannot be: a model without trainable parameters,
    one that returns no logits, operations that torch cannot differentiate twice.
    """
    with plain_torch():
        train = as_batch(batch, model, "batch")
        meta = as_batch(meta_batch, model, "meta batch")
        forward = pass_of(model, train, options or StepOptions(), keep_buffers=True)
        weigher = _Weigher(weight_net, extra, keep_buffers=True)
        return _meta_gradient(forward, weigher, meta, lr, optimizer)[0]


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
    with plain_torch():
        train = as_batch(batch, model, "batch", options.checked)
        forward = pass_of(model, train, options)
        meta_loss = meta_logits = None
        if meta_batch is not None:
            meta_batch = as_batch(meta_batch, model, "meta batch", options.checked)
            gradients, meta_loss, meta_logits = _meta_gradient(
                forward, _Weigher(weight_net, extra, keep_buffers=True), meta_batch, lr
            )
            learned = [(p, g) for p, g in zip(weight_net.parameters(), gradients, strict=True)
                       if p.requires_grad]  # fmt: skip
            apply_gradients(weight_optimizer, *zip(*learned, strict=True))
        trained = list(forward.trained.values())
        weigh = _Weigher(weight_net, extra)
        apply_gradients(optimizer, trained, forward.gradient(weigh, trained, last=True))
        return MetaStep(
            forward.losses, forward.logits, weigh.weights.detach(), meta_loss, meta_logits,
            forward.fallback,
        )  # fmt: skip


def apply_gradients(
    optimizer: Optimizer, parameters: Iterable[Tensor], gradients: Iterable[Tensor]
) -> None:
    """One step of the optimizer with these gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.to(parameter.dtype)
    with default_device(parameter.device):  # where Adam counts its steps
        optimizer.step()
    optimizer.zero_grad()


def _meta_gradient(
    forward: ClassifierPass,
    weigh: _Weigher,
    meta_batch: MetaBatch,
    lr: float,
    optimizer: Optimizer | None = None,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The gradient by the weight net's parameters, and the meta batch's loss and logits."""
    moved = list(forward.trained.values())
    gradients = forward.gradient(weigh, moved)
    theta = virtual_step(moved, gradients, lr, optimizer)
    direction, meta_loss, meta_logits = forward.meta_direction(theta, meta_batch)
    del theta
    weights = weigh.weights
    slopes = forward.slopes(direction, weights.detach(), gradients)
    learned = [p for p in weigh.weight_net.parameters() if p.requires_grad]
    found = iter(
        torch.autograd.grad(
            weights, learned, slopes.to(weights.dtype) * (-lr / len(slopes)), materialize_grads=True
        )
    )
    by_parameter = [
        next(found) if p.requires_grad else torch.zeros_like(p)
        for p in weigh.weight_net.parameters()
    ]
    means = tuple(forward.options.mean_over_ranks(by_parameter, len(slopes)))
    return means, meta_loss, meta_logits


class _Weigher:
    """The weight net as a function of the losses of a batch.

    It is asked once, so that what it draws, as in dropout, is drawn once: `weights` is the answer with
    its graph. With `keep_buffers` the net's buffers stay as they are.
    """

    def __init__(
        self, weight_net: nn.Module, extra: Extra | None, keep_buffers: bool = False
    ) -> None:
        self.weight_net = unwrapped(weight_net, "weight net")
        check_trainable(self.weight_net, "weight net")
        self.extra = extra
        self.buffers = (
            {name: b.clone() for name, b in weight_net.named_buffers()} if keep_buffers else {}
        )
        self.answer: Tensor | None = None

    @property
    def weights(self) -> Float[Tensor, " batch"]:
        """The weights that it gave."""
        assert self.answer is not None
        if not self.answer.requires_grad:
            raise ValueError("the weight net's weights do not depend on its parameters")
        return self.answer

    def __call__(self, losses: Tensor) -> Tensor:
        inputs = net_inputs(losses, self.extra).to(floating_type(self.weight_net))
        answer = functional_call(self.weight_net, self.buffers, (inputs,))
        self.answer = one_weight_a_loss(answer, losses)
        return self.answer.detach()
