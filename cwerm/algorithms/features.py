"""Images to features with a pretrained timm backbone (CW-ERM paper, section 4.1: z = h(x)).

What decodes images (`InputSpec`, `preprocess`) needs PIL and NumPy alone, so that decoding
processes stay small: torch and timm are imported when a backbone is loaded.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from cwerm.algorithms.names import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Backbone", "InputSpec", "embed", "load_backbone", "preprocess", "resize_window"]

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

LARGEST_WHOLE = 16  # times the part that is used: images up to there are resized whole


@dataclass(frozen=True)
class InputSpec:
    """What a backbone expects of an image, in timm's terms; `size` is a square's side in pixels."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str


@dataclass(frozen=True)
class Backbone:
    """A timm model without classifier, frozen and in eval mode, and what it expects of an image."""

    module: Any  # torch.nn.Module; naming it would import torch
    spec: InputSpec
    num_features: int


def load_backbone(
    name: str, weights: str = "pretrained", image_size: int | None = None, seed: int = 0
) -> Backbone:
    """The timm model `name` as a feature extractor.

    `weights` is "pretrained" (timm's hub), "random" (drawn from `seed`), or a checkpoint file,
    .safetensors or .pth, with timm's names or the same tensors in the same order. `image_size`
    replaces the model's input size; images are then not scaled up before the centre crop (crop_pct
    = 1), which would cut the borders of small images away. Raises ValueError for names, files and
    sizes that do not fit.
    """
    import timm
    import torch

    import cwerm.algorithms.models  # noqa: F401 - registers the project's models with timm

    pretrained_names = timm.list_models(pretrained=True)
    names = {*timm.list_models(), *pretrained_names}
    if name not in names:
        raise unknown_name("backbone", name, names)
    if (
        weights == "pretrained"
        and name not in pretrained_names
        and not timm.is_model_pretrained(name)
    ):
        raise ValueError(
            f"timm has no pretrained weights for {name}; give a checkpoint file as weights"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = timm.create_model(name, pretrained=weights == "pretrained", num_classes=0)
    if weights not in ("pretrained", "random"):
        _load_file(module, name, weights)
    config = timm.data.resolve_model_data_config(module)
    if image_size is not None:
        _set_image_size(module, name, image_size)
        config |= {"input_size": (3, image_size, image_size), "crop_pct": 1.0}
    _, height, width = config.pop("input_size")
    if height != width:
        raise ValueError(f"{name} takes images of {width}x{height}; give an image_size for squares")
    assert config["interpolation"] in RESAMPLING
    spec = InputSpec(size=height, **config)
    module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Backbone(module, spec, _output_width(module, spec))


def _output_width(module: Any, spec: InputSpec) -> int:
    """Width of the pooled features, which for some models is not timm's `num_features`."""
    import torch

    with torch.inference_mode():
        try:
            return int(module(torch.zeros(1, 3, spec.size, spec.size)).shape[1])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"the backbone cannot take images of size {spec.size} ({reason}); use larger ones"
            ) from None


def _load_file(module: Any, name: str, path: str) -> None:
    """Load a checkpoint's tensors, matched by name, or else by order as in timm's `remap`.

    Unlike timm's, the match by order wants equal shapes and the full model's number of tensors: a
    file of another model must not pass for this one.
    """
    import timm

    try:
        state = timm.models.load_state_dict(path)
    except FileNotFoundError:
        raise ValueError(
            f"weights file {path} does not exist; give a path, 'pretrained' or 'random'"
        ) from None
    except Exception as error:  # whatever torch or safetensors raise on a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights file {path} is no readable checkpoint ({reason}); export it again"
        ) from None
    expected = module.state_dict()
    if not expected.keys() <= state.keys():
        full = timm.create_model(name).state_dict()
        names = full if len(state) == len(full) else expected
        state = dict(zip(names, state.values(), strict=True)) if len(state) == len(names) else {}
    chosen: dict[str, Tensor] = {}
    for key, value in expected.items():
        if key not in state or state[key].shape != value.shape:
            raise ValueError(
                f"weights file {path} does not fit {name}, first at {key}; name the model it is of"
            )
        chosen[key] = state[key]
    module.load_state_dict(chosen)


def _set_image_size(module: Any, name: str, image_size: int) -> None:
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
    except AssertionError as error:
        raise ValueError(f"{name} cannot take images of size {image_size}: {error}") from None


def preprocess(image: Image.Image, spec: InputSpec) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as timm evaluates it: resized to size / crop_pct, its centre cut to size."""
    assert image.mode == "RGB"
    width, height = _resized(image.width, image.height, spec)
    left, top = _offset(width, spec.size), _offset(height, spec.size)
    window = (
        max(0, -left),
        max(0, -top),
        min(width, spec.size - left),
        min(height, spec.size - top),
    )
    resized = resize_window(image, (width, height), window, RESAMPLING[spec.interpolation])
    canvas = Image.new(
        "RGB", (spec.size, spec.size), tuple(round(255 * mean) for mean in spec.mean)
    )
    canvas.paste(resized, (max(0, left), max(0, top)))
    return np.array(canvas)


def resize_window(
    image: Image.Image,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    resampling: Image.Resampling,
) -> Image.Image:
    """The part ``window`` (left, top, right, bottom) of the image resized to ``size``.

    Of very long images the part alone is made: whole, a line of 20,000 pixels would be scaled to
    gigabytes.
    """
    left, top, right, bottom = window
    extent = right - left, bottom - top
    if size[0] * size[1] <= LARGEST_WHOLE * extent[0] * extent[1]:
        return image.resize(size, resampling).crop(window)
    across, down = image.width / size[0], image.height / size[1]
    box = (left * across, top * down, right * across, bottom * down)
    return image.resize(extent, resampling, box=box)


def _resized(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height before the crop, rounded as torchvision and timm do, at least 1."""
    scaled = math.floor(spec.size / spec.crop_pct)
    if spec.crop_mode == "squash":
        return scaled, scaled
    if spec.crop_mode == "border":
        ratio = max(width, height) / scaled
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return scaled, int(scaled * height / width)
    return int(scaled * width / height), scaled


def _offset(extent: int, size: int) -> int:
    """Where a side begins on the canvas: below zero if its ends are cut, above if it is padded."""
    return (size - extent) // 2 if extent < size else -round((extent - size) / 2)


def embed(
    backbone: Backbone, images: UInt8[np.ndarray, "b size size 3"], device: Any = "cpu"
) -> Float32[np.ndarray, "b d"]:
    """Pooled features of preprocessed images; moves the backbone to `device` (torch's) for good.

    On CUDA devices in bfloat16, or float16 where that is missing; on all others in float32.
    """
    import torch

    module = backbone.module.to(device)
    precision: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if torch.device(device).type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        precision = torch.autocast("cuda", dtype)
    with torch.inference_mode(), precision:
        mean = torch.tensor(backbone.spec.mean, device=device)[:, None, None]
        std = torch.tensor(backbone.spec.std, device=device)[:, None, None]
        pixels = torch.as_tensor(images).to(device).permute(0, 3, 1, 2)
        features = module((pixels.float() / 255 - mean) / std)
    return features.float().cpu().numpy()
