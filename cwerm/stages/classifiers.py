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


def batch_bytes(section: str, name: str, num_classes: int, size: int) -> int:
    """Bytes of activations that training takes a sample of ``size`` pixels.

    Raises:
        UserError: the model can't take images of that size.
    """
    from cwerm.algorithms.memory import estimate_batch_bytes

    model = create_classifier(f"{section}.model", name, num_classes, size, seed=0)
    try:
        return estimate_batch_bytes(model, (3, size, size), training=True)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{section}.image_size: {name} can't take images of {size} pixels ({reason}); "
            f"set {section}.image_size or choose another {section}.model"
        ) from error


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
