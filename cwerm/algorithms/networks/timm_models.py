"""timm's models as cwerm takes them: names, the hub they come from, and sizes of images that fit them."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, no_type_check
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "channels_last",
    "fitting_size",
    "is_known",
    "local_folder",
    "patch_side",
    "pretrained_source",
    "source_of",
    "without_memory",
]

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")
CONNECT_SECONDS = 5.0
MOST_MORE = 64  # pixels that a side may grow by
# What initialisers do to a tensor in place. Without numbers there is nothing to do, and torch's ways of
# doing nothing are slow: seconds for a network of 200 layers.
INITIALISERS = {
    *(
        "normal_",
        "uniform_",
        "trunc_normal_",
        "erfinv_",
        "clamp_",
        "mul_",
        "add_",
        "fill_",
        "zero_",
    ),
    *("constant_", "ones_", "zeros_", "xavier_uniform_", "xavier_normal_"),
    *("kaiming_uniform_", "kaiming_normal_", "orthogonal_"),
}


def source_of(name: str) -> str:
    """``hf-hub`` or ``local-dir`` where a name says that the model lies there; "" for timm's own names."""
    return next((s.rstrip(":").replace("_", "-") for s in SOURCES if name.startswith(s)), "")


def is_known(name: str) -> bool:
    """Whether timm has a model of that name, and where the name has a tag, such weights for it."""
    import timm

    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm.list_models(pretrained=True))


def local_folder(name: str) -> Path | None:
    """The folder of a ``local-dir:`` name, None for all others.

    Raises:
        ValueError: it is no absolute path, which workers need, or not timm's folder of a model.
    """
    if source_of(name) != "local-dir":
        return None
    folder = Path(name.partition(":")[2])
    if not folder.is_absolute():
        raise ValueError(f"{name}: give an absolute path, and one that all hosts see")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name}: no config.json in '{folder}'; give timm's folder of a model")
    return folder


def channels_last(module: nn.Module) -> nn.Module:
    """The module with its 4-dimensional parameters in channels-last memory.

    ``module.to(memory_format=...)`` fails where a layer has five dimensions, and turns buffers as well,
    which no collective operation takes then.
    """
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


@contextlib.contextmanager
def pretrained_source(name: str) -> Iterator[None]:
    """Around the making of a pretrained model: its weights are in the cache or can be had, known in seconds.

    Raises:
        ValueError: neither; names the host and what else can be given. As `local_folder`.
    """
    if local_folder(name) is not None:
        yield
        return
    from huggingface_hub import constants

    reason = _no_answer(_address(name))
    if reason and not _is_cached(name):
        raise ValueError(
            f"no weights for {name}: {urlsplit(_address(name)).hostname} can't be reached ({reason}); give a "
            "file, package:PACKAGE/FILE of an installed package, or random"
        )
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = bool(reason) or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _address(name: str) -> str:
    import timm
    from huggingface_hub import constants

    config = None if source_of(name) else timm.get_pretrained_cfg(name)
    return config.url if config and config.url and not config.hf_hub_id else constants.ENDPOINT


def _is_cached(name: str) -> bool:
    import timm
    from huggingface_hub import try_to_load_from_cache

    if source_of(name):
        repository, files = name.partition(":")[2], ["config.json"]
    else:
        config = timm.get_pretrained_cfg(name)
        if not config.hf_hub_id:
            cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(config.url).path).name)
            return cached.is_file()
        repository = config.hf_hub_id
        files = [config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    repository, _, revision = repository.partition("@")
    return any(
        isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str)
        for file in files
    )


def _no_answer(address: str) -> str:
    """Why nothing answers there, "" where something does; asks as a download would, proxies counted."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except urllib.error.URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error) or type(error).__name__
    return ""


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """The module on torch's meta device, made in no time; a real one where making it takes numbers."""
    try:
        with torch.device("meta"), _Uninitialised():
            return build()
    except Exception:
        return build()


class _Uninitialised(TorchFunctionMode):
    """Within it, tensors on the meta device are not initialised."""

    @no_type_check  # called for every operation on a tensor
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in INITIALISERS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return function(*args, **kwargs)


def fitting_size(build: Callable[[int | None], nn.Module], size: int) -> int:
    """The smallest side from ``size`` on at which every pixel of an image reaches the output.

    A network that cuts the image into patches leaves out what is left over: of 28 pixels a third, with
    patches of 16; some refuse such a side. ``build`` makes the network for a side, or for its own; one
    that has no patches takes any. Raises what ``build`` raises where no side near fits.
    """
    try:
        sketch = without_memory(lambda: build(size))
    except Exception:
        patch = patch_side(without_memory(lambda: build(None)))
        if size % patch == 0:
            raise
    else:
        patch, reduction = patch_side(sketch), _reduction(sketch)
        whole = reduction and size % reduction == 0
        if patch == 1 or whole or not _loses_border(build(size), size):
            return size
    for side in range(-(-size // patch) * patch, size + MOST_MORE, patch):
        if not _loses_border(build(side), side):
            return side
    return size


def patch_side(module: Any) -> int:
    """The side of the patches that the network cuts an image into; 1 where there are none."""
    size = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if size is not None:
        return int(size if isinstance(size, int) else max(size))
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or first.padding not in ((0, 0), "valid"):
        return 1
    return int(max(first.stride))


def _loses_border(module: nn.Module, side: int) -> bool:
    """Whether the last rows or columns of an image change nothing."""
    module.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, side, side, generator=generator).requires_grad_()
    try:
        output = module(images)
    except (
        Exception
    ):  # of its patches, or of its own: who uses the module says which sizes it takes
        return side % patch_side(module) != 0
    (gradient,) = torch.autograd.grad(_total(output), images)
    seen = gradient.abs().sum((0, 1))
    return not (seen[-1].any() and seen[:, -1].any())


def _reduction(module: Any) -> int:
    """Pixels a side that become one place of the last map, 0 where timm does not say."""
    info = getattr(module, "feature_info", None)
    try:
        return int(info[-1]["reduction"]) if info else 0
    except (KeyError, TypeError, IndexError):
        return 0


def _total(output: Any) -> Tensor:
    values = output if isinstance(output, tuple | list) else [output]
    return sum((value.square().sum() for value in values), torch.zeros(()))
