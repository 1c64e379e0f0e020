"""Images to features with a pretrained timm backbone (CW-ERM paper, section 4.1: z = h(x)).

torch and timm are imported when a backbone is loaded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from cwerm.algorithms.networks.preprocessing import RESAMPLING, InputSpec

__all__ = ["Backbone", "embed", "load_backbone"]


@dataclass(frozen=True)
class Backbone:
    """A timm model without classifier, frozen and in eval mode, and what it expects of an image."""

    module: Any  # torch.nn.Module; naming it would import torch
    spec: InputSpec
    num_features: int
    remarks: tuple[str, ...] = ()  # what was decided in loading it, for people


def load_backbone(
    name: str, weights: str = "pretrained", image_size: int | None = None, seed: int = 0
) -> Backbone:
    """The timm model `name` as a feature extractor.

    `weights` is "pretrained" (timm's hub), "random" (drawn from `seed`), or a file of weights: one that
    `read_weights` reads and that fits, or a model that cwerm has trained, with its own normalisation and
    size. `image_size` replaces the model's input size; images are then not scaled up before the centre
    crop (crop_pct = 1), which would cut the borders of small images away. A size whose border would not
    reach the features is raised to the next one that fits. Raises ValueError for names, files and sizes
    that do not fit.
    """
    import torch

    from cwerm.algorithms.networks.timm_backbones import (
        check_backbone_name,
        create_backbone,
        fitting_backbone_size,
        set_image_size,
    )
    from cwerm.algorithms.networks.timm_models import channels_last

    file = None
    if weights not in ("pretrained", "random"):
        from cwerm.algorithms.networks.weight_files import read_weights

        file = read_weights(weights)
    check_backbone_name(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = create_backbone(name, pretrained=weights == "pretrained")
    remarks = []
    about = file.about if file else {}
    if file is not None:
        remarks.append(_load_file(module, name, file))
    config = _resolved_config(module, about)
    if image_size is not None:
        size = fitting_backbone_size(module, name, image_size)
        if size != image_size:
            remarks.append(
                f"takes images of {size} pixels, as {name} would leave out a border of {image_size}"
            )
        set_image_size(module, name, size)
        config |= {"input_size": (3, size, size), "crop_pct": 1.0}
    _, height, width = config.pop("input_size")
    if height != width:
        raise ValueError(f"{name} takes images of {width}x{height}; give an image_size for squares")
    assert config["interpolation"] in RESAMPLING
    spec = InputSpec(size=height, **config)
    channels_last(module.eval().requires_grad_(False))
    told = tuple(remark for remark in remarks if remark)
    return Backbone(module, spec, _output_width(module, name, spec), told)


def _load_file(module: Any, name: str, file: Any) -> str:
    from cwerm.algorithms.networks.timm_backbones import set_image_size
    from cwerm.algorithms.networks.weight_matching import load_weights_into

    trained = file.about.get("model")
    if isinstance(trained, str) and trained.partition(".")[0] != name.partition(".")[0]:
        raise ValueError(
            f"weights file {file.path} is of {trained}, not of {name}; name that model"
        )
    if isinstance(size := file.about.get("image_size"), int):
        set_image_size(module, name, size)
    return load_weights_into(module, name, file)


def _resolved_config(module: Any, about: dict[str, Any]) -> dict[str, Any]:
    """Input size and normalisation: timm's, or those that a model of cwerm's own was trained with."""
    import timm

    config = timm.data.resolve_model_data_config(module)
    # read from a file they are lists
    config |= {key: tuple(config[key]) for key in ("mean", "std", "input_size")}
    mean, std, size = (about.get(key) for key in ("mean", "std", "image_size"))
    if mean is None or std is None or size is None:
        return config
    return {
        "input_size": (3, int(size), int(size)),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }


def _output_width(module: Any, name: str, spec: InputSpec) -> int:
    """Width of the pooled features, which for some models is not timm's `num_features`."""
    import torch

    from cwerm.algorithms.networks.timm_backbones import no_such_size

    with torch.inference_mode():
        try:
            output = module(torch.zeros(1, 3, spec.size, spec.size))
        except Exception as error:  # layers have words of their own for maps that are too small
            raise ValueError(no_such_size(name, spec.size, error)) from None
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise ValueError(f"{name} gives no single vector an image; choose another")
    return int(output.shape[1])


def embed(
    backbone: Backbone,
    images: UInt8[np.ndarray, "n size size 3"],
    device: Any = "cpu",
    precision: str = "float32",
    batch_size: int | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Pooled features of preprocessed images; moves the backbone to `device` (torch's) for good.

    `precision` is what the backbone computes in: `float32` or `bfloat16`. It takes `batch_size` images at a
    time, or all. A GPU is waited for once, at the end.
    """
    import torch

    device = torch.device(device)
    backbone.module.to(device)
    size = batch_size or len(images)
    pixels = torch.as_tensor(images)
    return torch.cat(
        [
            _on_device(backbone, batch, device, precision)
            for batch in (pixels.split(size) if size else [pixels])
        ]
    ).numpy(force=True)


def _on_device(
    backbone: Backbone, pixels: UInt8[Any, "b size size 3"], device: Any, precision: str
) -> Float32[Any, "b d"]:
    """Features of one batch, on the device, without waiting for it."""
    import torch

    from cwerm.algorithms.torch_state import autocast

    if device.type == "cuda":
        pixels = pixels.pin_memory()  # from other memory a copy waits for the device
    mean, std = _constants(backbone.spec.mean, backbone.spec.std, device)
    with torch.inference_mode(), autocast(device, precision):
        pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        features = backbone.module((pixels.float() / 255 - mean) / std)
    return features.float()


@functools.lru_cache(maxsize=4)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: Any) -> tuple[Any, Any]:
    """A backbone's mean and deviation [3, 1, 1], kept on the device."""
    import torch

    of_means, of_stds = (
        torch.tensor(values, device=device)[:, None, None] for values in (mean, std)
    )
    return of_means, of_stds
