"""The networks are the published ones by size and act as timm models."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from cwerm.algorithms.networks import models
from cwerm.algorithms.networks.names import OWN_MODELS


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet20", {}, 269_722),
        ("resnet32", {}, 464_154),
        ("preactresnet18", {}, 11_172_170),
        ("resnet20", {"num_classes": 100, "in_chans": 1}, 269_722 + 90 * 65 - 2 * 9 * 16),
    ],
)
def test_parameter_counts(name: str, options: dict[str, int], count: int) -> None:
    model = timm.create_model(name, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", ["resnet20", "resnet32", "preactresnet18"])
def test_acts_as_a_timm_model(name: str) -> None:
    model = timm.create_model(name, num_classes=7, in_chans=1).eval()
    images = torch.randn(2, 1, 20, 28)
    maps = model.forward_features(images)
    pooled = model.forward_head(maps, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    torch.testing.assert_close(model.get_classifier()(pooled), model(images))
    assert maps.shape[2:] == {"resnet20": (5, 7), "resnet32": (5, 7)}.get(name, (3, 4))
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    assert model.num_classes == 3
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), pooled)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    assert config["mean"] == pytest.approx((0.4914, 0.4822, 0.4465))
    assert name in timm.list_models()
    assert name not in timm.list_models(pretrained=True)


def test_names_are_known_without_loading_any() -> None:
    """A run that finds all made needs the names alone, and torch and timm take seconds to load."""
    assert sorted(OWN_MODELS) == sorted(timm.list_models(module="models"))
    code = """
import sys
import cwerm.cli.runs, cwerm.pipeline, cwerm.runs.preflight
from cwerm.algorithms.networks.names import OWN_MODELS
from cwerm.stages.classifiers import check_classifier_name
for name in OWN_MODELS:
    check_classifier_name("train.model", name)
assert not {"torch", "timm", "ray"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_are_no_pretrained_weights() -> None:
    with pytest.raises(ValueError, match="resnet32 has no pretrained weights"):
        timm.create_model("resnet32", pretrained=True)


def _apply_norm(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    shape = (1, -1, 1, 1)
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight.view(shape) + norm.bias.view(shape)


def test_option_a_block_by_hand() -> None:
    """The shortcut takes every second pixel and puts zeros in the channels that are new."""
    torch.manual_seed(0)
    block = models.BasicBlock(4, 8, 2)
    x = torch.randn(3, 4, 6, 6)
    first, norm1, _, second, norm2 = block.body
    y = functional.conv2d(x, first.weight, stride=2, padding=1)
    y = functional.conv2d(_apply_norm(norm1, y).relu(), second.weight, padding=1)
    shortcut = torch.zeros(3, 8, 3, 3)
    shortcut[:, 2:6] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), (_apply_norm(norm2, y) + shortcut).relu())


def test_preactivation_block_by_hand() -> None:
    """Where the shape changes, the shortcut projects the activation and not the input."""
    torch.manual_seed(0)
    block = models.PreActivationBlock(4, 8, 2)
    x = torch.randn(3, 4, 6, 6)
    before = x.clone()
    first, norm2, _, second = block.body
    activation = _apply_norm(block.activation[0], x).relu()
    y = functional.conv2d(activation, first.weight, stride=2, padding=1)
    y = functional.conv2d(_apply_norm(norm2, y).relu(), second.weight, padding=1)
    y = y + functional.conv2d(activation, block.projection.weight, stride=2)
    torch.testing.assert_close(block(x), y)
    assert torch.equal(x, before)


def test_weights_start_at_kaiming_scale() -> None:
    torch.manual_seed(0)
    model = timm.create_model("preactresnet18")
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
