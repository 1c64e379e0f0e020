from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from cwerm.algorithms.memory import estimate_batch_bytes


def test_mlp_by_hand() -> None:
    mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    # saved: the input (4 floats), and ReLU's output (8), which the last layer saves too
    assert estimate_batch_bytes(mlp, (4,), training=True) == 4 * (4 + 8)
    # largest layer: ReLU, 8 in and 8 out
    assert estimate_batch_bytes(mlp, (4,), training=False) == 4 * (8 + 8)


def test_views_cost_nothing() -> None:
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 2)
    )
    assert estimate_batch_bytes(net, (4,), training=True) == 4 * (4 + 8)


def test_convolution_with_batchnorm_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
    )
    pixels = 10 * 10
    # saved: the image, BatchNorm's input, ReLU's output
    assert estimate_batch_bytes(net, (3, 10, 10), training=True) == 4 * pixels * (3 + 16 + 16)
    # in place, ReLU's input and output are one
    assert estimate_batch_bytes(net, (3, 10, 10), training=False) == 4 * pixels * (16 + 16)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_twice_the_side_needs_four_times_the_memory(name: str, training: bool) -> None:
    module = timm.create_model(name, num_classes=0)
    small = estimate_batch_bytes(module, (3, 64, 64), training)
    large = estimate_batch_bytes(module, (3, 128, 128), training)
    assert 3.9 < large / small < 4.1
    assert next(module.parameters()).device == torch.device("cpu")  # the module is not touched


def test_training_estimate_equals_what_autograd_holds() -> None:
    module = timm.create_model("resnet18", num_classes=0)
    storages = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        module(torch.zeros(3, 3, 64, 64))
    constant = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    held = sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in storages.items()
        if address not in constant
    )
    assert estimate_batch_bytes(module, (3, 64, 64), training=True) == pytest.approx(
        held / 3, rel=0.01
    )
