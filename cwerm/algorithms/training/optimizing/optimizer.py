"""The optimizer of a recipe: SGD or AdamW, with a learning rate of the last layer's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cwerm.algorithms.training.recipe import Recipe

__all__ = ["load_optimizer", "make_optimizer", "set_lr"]

FACTOR = "lr_factor"  # of a group of parameters, beside torch's own entries


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimizer of all parameters, one kernel a step on GPUs.

    SGD's weight decay is that of all parameters; AdamW's leaves out biases, norms and whatever the model
    names in `no_weight_decay`, as is usual.

    Raises:
        ValueError: the last layer is to have a rate of its own, and the model does not say which it is.
    """
    groups = _groups(model, recipe)
    given: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    fused = device.type == "cuda"
    if recipe.optimizer == "adamw":
        first, second = recipe.betas
        return torch.optim.AdamW(groups, betas=(first, second), fused=fused, **given)
    return torch.optim.SGD(groups, momentum=recipe.momentum, fused=fused, **given)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group the rate, times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[FACTOR]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a state, also one of another kind of device, whose kernels stay behind."""
    own = [{"fused": group["fused"]} for group in optimizer.param_groups]
    groups = [{**group, **kept} for group, kept in zip(state["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters by factor and decay, in their order; one group where nothing sets them apart."""
    head = _head(model) if recipe.head_lr_factor != 1 else set()
    spared = _without_decay(model) if recipe.optimizer == "adamw" else set()
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        of_head, decays = id(parameter) in head, name not in spared
        options = {FACTOR: recipe.head_lr_factor if of_head else 1.0}
        if not decays:
            options["weight_decay"] = 0.0
        made = groups.setdefault((of_head, decays), {"params": [], **options})
        made["params"].append(parameter)
    return list(groups.values())


def _head(model: Any) -> set[int]:
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(found, nn.Module):
        raise ValueError("head_lr_factor: the model does not say which layer is its last")
    return {id(parameter) for parameter in found.parameters()}


def _without_decay(model: Any) -> set[str]:
    named = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    return named | {name for name, value in model.named_parameters() if value.ndim <= 1}
