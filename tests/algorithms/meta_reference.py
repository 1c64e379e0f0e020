"""What the tests of meta steps share: models, batches, and the unrolled step as reference."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from cwerm.algorithms.networks import models  # noqa: F401  (registers resnet20, preactresnet18)

Pair = tuple[Tensor, Tensor]


def group_norm_network() -> nn.Module:
    """Convolutions, GroupNorm and dropout; no BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Dropout2d(0.2),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.LeakyReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def vit(**kwargs: float) -> nn.Module:
    """Fused attention, whose second derivative torch lacks."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, num_classes=10, depth=2, **kwargs
    )


def mlp() -> nn.Module:
    """No normalisation, and nothing drawn."""
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.Tanh(), nn.Linear(32, 10))


def images(size: int, seed: int, dtype: torch.dtype = torch.float64) -> Pair:
    """Noise of 16 pixels and labels below 10."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(size, 3, 16, 16, generator=generator).to(dtype)
    return pixels, torch.randint(10, (size,), generator=generator)


def losses_at(model: nn.Module, theta: dict[str, Tensor], batch: Pair) -> Tensor:
    """Per-sample losses with `theta` as parameters; the buffers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with sdpa_kernel(SDPBackend.MATH):
        logits = functional_call(model, {**theta, **buffers}, (batch[0],))
    return functional.cross_entropy(logits, batch[1], reduction="none")


def unrolled_gradient(
    model: nn.Module,
    weight_net: nn.Module,
    batch: Pair,
    meta_batch: Pair,
    lr: float,
    *,
    extra: Tensor | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    moved: str = "",
) -> tuple[Tensor, ...]:
    """The meta-gradient by double backward; parameters whose name begins with `moved` move."""
    theta = {n: p for n, p in model.named_parameters() if p.requires_grad and n.startswith(moved)}
    losses = losses_at(model, theta, batch)
    columns = losses.detach()[:, None]
    weights = weight_net(columns if extra is None else torch.cat([columns, extra], 1))
    gradients = torch.autograd.grad(
        (weights * losses).mean(), list(theta.values()), create_graph=True, materialize_grads=True
    )
    after = {}
    for (name, parameter), gradient in zip(theta.items(), gradients, strict=True):
        step = gradient
        if optimizer is not None:
            step = step + optimizer.param_groups[0]["weight_decay"] * parameter
            buffer = optimizer.state[parameter]["momentum_buffer"]
            step = step + optimizer.param_groups[0]["momentum"] * buffer
        after[name] = parameter - lr * step
    meta_loss = losses_at(model, after, meta_batch).mean()
    return torch.autograd.grad(meta_loss, list(weight_net.parameters()))


def difference(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Relative, in the Euclidean norm over all tensors."""
    a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in (actual, expected))
    assert b.norm() > 0
    return ((a - b).norm() / b.norm()).item()
