"""The small-image networks of the paper and of its authors' code, and one for CPUs, registered with timm.

`timm.create_model("resnet20" | "resnet32" | "preactresnet18" | "small_cnn", num_classes=...)` works as
for any timm model, once this module is imported. Sources: He et al., "Deep residual learning", section 4.2
(ResNet20 and ResNet32, shortcuts of option A), and "Identity mappings in deep residual networks"
(pre-activation).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SmallCNN", "SmallImageResNet"]

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


def _conv3x3(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm; the shortcut has no parameters (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv3x3(in_channels, channels, stride),
            *_norm_relu(channels),
            _conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Add the shortcut to the block's output, then ReLU."""
        shortcut = x
        if self.stride > 1 or self.new_channels:
            before = self.new_channels // 2
            padding = (0, 0, 0, 0, before, self.new_channels - before)
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], padding)
        return torch.relu_(self.body(x) + shortcut)


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU before each 3x3 convolution; a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.activation = _norm_relu(in_channels)
        self.body = nn.Sequential(
            _conv3x3(in_channels, channels, stride),
            *_norm_relu(channels),
            _conv3x3(channels, channels),
        )
        self.projection = (
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            if stride > 1 or in_channels != channels
            else None
        )

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Add the shortcut (the input or its projection) to the block's output."""
        activation = self.activation(x)
        shortcut = x if self.projection is None else self.projection(activation)
        return self.body(activation) + shortcut


class SmallImageResNet(nn.Module):
    """A residual network for images of about 32 pixels; any size works, as the pool is global.

    `depths` are the blocks of each stage; the first stage has `width` channels, and each further
    one twice as many at half the resolution.
    In pre-activation networks BatchNorm and ReLU stand before the pool, as in the paper.
    """

    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int,
        *,
        preactivation: bool,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        block = PreActivationBlock if preactivation else BasicBlock
        self.stem = nn.Sequential(_conv3x3(in_chans, width))
        if not preactivation:
            self.stem.extend(_norm_relu(width))
        stages = nn.Sequential()
        channels = width
        for stage, depth in enumerate(depths):
            for position in range(depth):
                out_channels = width * 2**stage
                stages.append(block(channels, out_channels, 2 if stage and not position else 1))
                channels = out_channels
        self.stages = stages
        self.tail = _norm_relu(channels) if preactivation else nn.Identity()
        self.num_features = self.head_hidden_size = channels
        self.head = ClassifierHead(channels, num_classes, global_pool, drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a fresh one; `num_classes=0` leaves pooled features."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features out_height out_width"]:
        """Return the map of features before the pool."""
        return self.tail(self.stages(self.stem(x)))

    def forward_head(
        self, x: Float[Tensor, "batch features height width"], pre_logits: bool = False
    ) -> Float[Tensor, "batch ..."]:
        """Return logits, or with `pre_logits` the pooled features."""
        return self.head(x, pre_logits=pre_logits)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch ..."]:
        """Return logits of shape [batch, num_classes]."""
        return self.forward_head(self.forward_features(x))


class SmallCNN(nn.Module):
    """Three strided convolutions and a wide hidden layer, each with BatchNorm.

    It trains on thousands of images a second and core, and is large enough to memorise wrong labels.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        img_size: int = 32,
        width: int = 32,
        hidden: int = 256,
        **_: Any,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        layers: list[nn.Module] = []
        side, channels = img_size, in_chans
        for factor, kernel in ((1, 5), (2, 3), (4, 3)):
            layers += [
                nn.Conv2d(channels, width * factor, kernel, 2, kernel // 2, bias=False),
                *_norm_relu(width * factor),
            ]
            side, channels = -(-side // 2), width * factor
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Sequential(
            nn.Linear(channels * side**2, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.classifier(self.hidden(self.features(x)))


def _config() -> dict[str, Any]:
    return {
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "first_conv": "stem.0",
        "classifier": "head.fc",
    }


default_cfgs = generate_default_cfgs(
    {name: _config() for name in ("resnet20", "resnet32", "preactresnet18")}
)


def _build(name: str, pretrained: bool, **kwargs: Any) -> SmallImageResNet:
    if pretrained:
        raise ValueError(f"{name} has no pretrained weights: use pretrained=False")
    return build_model_with_cfg(SmallImageResNet, name, False, **kwargs)


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """ResNet20 with shortcuts of option A: 269,722 parameters on 10 classes."""
    return _build("resnet20", pretrained, depths=(3, 3, 3), width=16, preactivation=False, **kwargs)


@register_model
def resnet32(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """ResNet32 with shortcuts of option A: 464,154 parameters on 10 classes."""
    return _build("resnet32", pretrained, depths=(5, 5, 5), width=16, preactivation=False, **kwargs)


@register_model
def preactresnet18(pretrained: bool = False, **kwargs: Any) -> SmallImageResNet:
    """PreActResNet18: 11,172,170 parameters on 10 classes."""
    return _build(
        "preactresnet18", pretrained, depths=(2, 2, 2, 2), width=64, preactivation=True, **kwargs
    )


@register_model
def small_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCNN:
    """SmallCNN: 622,634 parameters on 10 classes and images of 28 pixels."""
    if pretrained:
        raise ValueError("small_cnn has no pretrained weights: use pretrained=False")
    return SmallCNN(**kwargs)
