"""Classifiers by their timm names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cwerm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


def check_classifier_name(key: str, name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: naming the job's ``key`` and near names.
    """
    import timm

    import cwerm.algorithms.models  # noqa: F401  registers the models for small images

    names = timm.list_models()
    if name not in names:
        hint = did_you_mean(name, names) or "; see timm.list_models() for the names"
        raise UserError(f"{key}: unknown model '{name}'{hint}")


def create_classifier(key: str, name: str, num_classes: int, size: int, seed: int) -> nn.Module:
    """A freshly initialised classifier for RGB images of ``size`` pixels, the same for a seed."""
    import timm
    import torch

    check_classifier_name(key, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(name, num_classes=num_classes, img_size=size)
        except TypeError:  # only models with position embeddings take a size
            return timm.create_model(name, num_classes=num_classes)
