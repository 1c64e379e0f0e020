"""timm's networks as feature extractors: their names, how they are made, the sizes of images they take."""

from __future__ import annotations

from typing import Any

import timm
import torch

import cwerm.algorithms.networks.models  # noqa: F401 - registers the project's models with timm
from cwerm.algorithms.networks.names import unknown_name
from cwerm.algorithms.networks.timm_models import (
    fitting_size,
    is_known,
    patch_side,
    pretrained_source,
    source_of,
)

__all__ = [
    "check_backbone_name",
    "create_backbone",
    "fitting_backbone_size",
    "no_such_size",
    "set_image_size",
]


def check_backbone_name(name: str, weights: str | None = None) -> None:
    """Raise ValueError for a name that timm does not know, or that `weights` do not go with."""
    if source_of(name):
        if weights not in (None, "pretrained"):
            raise ValueError(
                f"{name} comes with its own weights; leave the weights at 'pretrained'"
            )
        return
    if not is_known(name):
        names = {*timm.list_models(), *timm.list_models(pretrained=True)}
        raise unknown_name("backbone", name, names)
    if weights == "pretrained" and not timm.is_model_pretrained(name):
        raise ValueError(
            f"timm has no pretrained weights for {name}; give a checkpoint file as weights"
        )


def create_backbone(name: str, pretrained: bool) -> Any:
    """The network without classifier."""
    if not pretrained:
        module = timm.create_model(name, num_classes=0)
    else:
        with pretrained_source(name):
            try:
                module = timm.create_model(name, pretrained=True, num_classes=0)
            except Exception as error:  # whatever the hub, torch or safetensors raise
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ValueError(f"the weights of {name} can't be had: {reason}") from None
    if getattr(module, "pretrained_cfg", None) is None:
        raise ValueError(
            f"{name} is a classifier for training and gives no features; choose another"
        )
    return module


def fitting_backbone_size(module: Any, name: str, image_size: int) -> int:
    """The asked side in pixels, or the next one at which no border of an image is left out."""
    fixed = module.pretrained_cfg.get("fixed_input_size")
    if source_of(name) or (patch_side(module) == 1 and not fixed):
        return image_size

    def build(side: int | None) -> Any:
        module = create_backbone(name, pretrained=False)
        if side is not None and side != module.pretrained_cfg["input_size"][-1]:
            set_image_size(module, name, side)
        return module.requires_grad_(False)

    try:
        with torch.random.fork_rng(devices=[]):
            return fitting_size(build, image_size)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(no_such_size(name, image_size, error)) from None


def no_such_size(name: str, size: int, error: Exception) -> str:
    """Why a model takes no images of that size, in one line."""
    reason = (str(error).splitlines() or [""])[0]
    config = None if source_of(name) else timm.get_pretrained_cfg(name)
    own = f", its own {config.input_size[-1]} for one" if config else ""
    return (
        f"{name} cannot take images of size {size}{reason and f' ({reason})'}; use larger ones{own}"
    )


def set_image_size(module: Any, name: str, image_size: int) -> None:
    """Let models with a fixed input size (transformers) resample their position embeddings."""
    size = module.pretrained_cfg["input_size"][-1]
    if not module.pretrained_cfg.get("fixed_input_size") or image_size == size:
        return
    if not hasattr(module, "set_input_size"):
        raise ValueError(
            f"{name} takes images of size {size} only, got {image_size}; leave the size out"
        )
    try:
        module.set_input_size(img_size=(image_size, image_size))
    except Exception as error:
        raise ValueError(no_such_size(name, image_size, error)) from None
