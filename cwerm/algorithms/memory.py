"""How much memory a module needs for one sample, without running it: for choosing batch sizes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["estimate_batch_bytes"]


class _Storages:
    """Bytes of distinct storages; tensors that share memory count once."""

    def __init__(self) -> None:
        self.tensors: dict[int, Tensor] = {}  # kept alive, so that no address is used twice

    def add(self, tensor: Tensor) -> Tensor:
        self.tensors[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def num_bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors.values())


def _saved_bytes(module: nn.Module, inputs: Tensor) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass."""
    saved = _Storages()
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        module(inputs)
    return saved.num_bytes()


def _largest_layer_bytes(module: nn.Module, inputs: Tensor) -> int:
    """Bytes of inputs and outputs of the leaf module that has most of them."""
    largest = 0

    def measure(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        layer = _Storages()
        for value in (*arguments, output):
            if isinstance(value, Tensor):
                layer.add(value)
        largest = max(largest, layer.num_bytes())

    for layer in module.modules():
        if not list(layer.children()):
            layer.register_forward_hook(measure)
    with torch.no_grad():
        module(inputs)
    return largest


def estimate_batch_bytes(module: nn.Module, input_shape: tuple[int, ...], training: bool) -> int:
    """Bytes of activations a float32 sample of `input_shape` (channels, height, width) costs.

    For training: what autograd saves for the backward pass. For inference: the largest input and
    output of any one layer. Computed on torch's meta device, so it allocates nothing; parameters,
    gradients and the work space of kernels come on top.
    """
    # constant parts (parameters, BatchNorm's statistics) drop out of the difference of two batch
    # sizes
    measure = _saved_bytes if training else _largest_layer_bytes
    model = copy.deepcopy(module).to("meta").train(training)
    small, large = (
        measure(model, torch.empty(size, *input_shape, device="meta")) for size in (2, 4)
    )
    return (large - small) // 2
