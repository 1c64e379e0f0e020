"""Classifiers and weight nets as callers have them: what cannot be trained is told before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cwerm.algorithms.inputs import as_array

__all__ = [
    "TrainModes",
    "as_batch",
    "check_labels",
    "check_logits",
    "check_trainable",
    "floating_type",
    "one_weight_a_loss",
    "unwrapped",
]


def unwrapped(model: nn.Module, name: str = "classifier") -> nn.Module:
    """The module itself, of one that is compiled, `DataParallel` or `DistributedDataParallel`.

    It has the same parameters. A meta step runs it on one device and uncompiled.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):  # of torch.compile
            model = model._orig_mod  # type: ignore[assignment]
        else:
            break
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise ValueError(
            f"the {name} is a TorchScript module, whose parameters cannot be replaced: give the "
            "module that it was made from"
        )
    return model


def check_trainable(model: nn.Module, name: str = "classifier") -> None:
    """Raise ValueError unless the model has parameters that autograd can train."""
    parameters = list(model.parameters())
    if any(is_lazy(parameter) for parameter in parameters):
        raise ValueError(f"the {name} has lazy layers without a size: run it once on a few samples")
    if any(parameter.is_inference() for parameter in parameters):
        raise ValueError(
            f"the {name} was made in torch.inference_mode, where nothing can be trained: make it "
            "outside"
        )
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            f"the {name} has no parameter that requires a gradient: unfreeze at least one layer"
        )


def floating_type(model: nn.Module) -> torch.dtype:
    """The type that the model computes in: that of its first real parameter."""
    types = (p.dtype for p in model.parameters() if p.dtype.is_floating_point)
    return next(types, torch.float32)


def as_batch(
    batch: Any, model: nn.Module, name: str, checked: bool = False
) -> tuple[Tensor, Tensor]:
    """Inputs in the model's type and labels, int64 or shares of the classes; `ValueError` for others.

    Labels that are `checked` are not looked through, for which a GPU would be waited for.
    """
    inputs, labels = (
        (
            values if isinstance(values, Tensor) else torch.from_numpy(as_array(values, name))
        ).detach()
        for values in batch
    )
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"the {name} has no samples: give at least one")
    if labels.ndim == 0 or len(labels) != len(inputs):
        raise ValueError(
            f"the {name} has {len(inputs)} inputs but labels of shape {list(labels.shape)}"
        )
    shares = labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] > 1
    if not shares:
        if labels.ndim != 1:
            raise ValueError(
                f"labels of the {name} have shape {list(labels.shape)}: give one class number for "
                "each sample, [batch]"
            )
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"labels of the {name} are {labels.dtype}: give class numbers, integers"
            )
        labels = labels.long()
        if not checked and labels.min() < 0:
            raise ValueError(
                f"labels of the {name} must be class numbers from 0 on, got {int(labels.min())}"
            )
    kept = any(buffer.dtype == torch.float64 for buffer in model.buffers())
    if inputs.is_floating_point() and not kept:
        inputs = inputs.to(floating_type(model))
    if inputs.is_inference() or labels.is_inference():
        inputs, labels = inputs.clone(), labels.clone()
    return inputs, labels


def check_logits(outputs: Any, size: int) -> Float[Tensor, "batch classes"]:
    """The classifier's outputs, at least float32; `ValueError` unless they are logits of `size` samples."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"the classifier returns a {type(outputs).__name__}: give one that returns logits, a "
            "tensor [batch, classes]; wrap it in a module that picks them"
        )
    if outputs.ndim != 2 or len(outputs) != size or not outputs.is_floating_point():
        hint = ", two of them for two classes" if outputs.ndim == 1 else ""
        raise ValueError(
            f"the classifier returns {outputs.dtype} of shape {list(outputs.shape)} for {size} "
            f"samples: give one that returns real logits [batch, classes]{hint}"
        )
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


def check_labels(labels: Tensor, outputs: int) -> None:
    """Raise ValueError unless the classifier has an output for each label."""
    if labels.ndim == 2:
        if labels.shape[1] != outputs:
            raise ValueError(
                f"labels have {labels.shape[1]} columns but the classifier has {outputs} outputs"
            )
    elif len(labels) and labels.max() >= outputs:
        highest = int(labels.max())
        raise ValueError(
            f"labels reach {highest} but the classifier has {outputs} outputs: give one with at "
            f"least {highest + 1}"
        )


def one_weight_a_loss(weights: Any, losses: Tensor) -> Float[Tensor, " batch"]:
    """The weight net's outputs [batch] or [batch, 1] in the type of the losses."""
    size = len(losses)
    if not isinstance(weights, Tensor) or weights.shape not in ((size,), (size, 1)):
        shape = list(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(
            f"the weight net returns {shape} for {size} losses: give one that returns one weight a "
            "loss, [batch] or [batch, 1]"
        )
    return weights.reshape(size).to(losses.dtype)


class TrainModes:
    """Train and eval flags of a model's modules: a layer that the caller froze in eval mode stays so.

    A model that is in eval mode as a whole is not frozen: it is trained by its own `train()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.given = {module: module.training for module in model.modules()}
        if not model.training:
            model.train()
        self.training = {module: module.training for module in model.modules()}

    def train(self) -> None:
        """Set the modes that training runs in."""
        _set(self.training)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode for a while."""
        self.model.eval()
        try:
            yield
        finally:
            self.train()

    def restore(self) -> None:
        """Set the flags that the caller had."""
        _set(self.given)


def _set(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training
