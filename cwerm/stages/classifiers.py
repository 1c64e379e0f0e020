"""Classifiers by their timm names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cwerm.errors import UserError, did_you_mean
from cwerm.job.tree import Job
from cwerm.stages import pixels
from cwerm.store.artifacts import Artifact
from cwerm.terminal import console

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_classifier_name(key: str, name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: naming the job's ``key`` and near names.
    """
    import timm

    import cwerm.algorithms.networks.models  # noqa: F401  registers the models for small images
    from cwerm.algorithms.networks.timm_models import is_known, source_of

    if source_of(name):
        raise UserError(
            f"{key}: '{name}' names weights, and training starts from random ones; give timm's name of the "
            "model"
        )
    if not is_known(name):
        hint = did_you_mean(name, timm.list_models()) or "; see timm.list_models() for the names"
        raise UserError(f"{key}: unknown model '{name}'{hint}")


def check_classifier(job: Job, section: str) -> None:
    """Check a section's model, and where its size is given whether it takes images of it.

    Raises:
        UserError: as `check_classifier_name` and `batch_bytes`.
    """
    settings = getattr(job, section)
    name, _, tag = settings.model.partition(".")
    check_classifier_name(f"{section}.model", settings.model)
    if tag:
        console.note(
            f"{section}.model: '{tag}' names weights; training starts from random ones of {name}"
        )
    if settings.image_size is not None:
        size = classifier_size(section, settings.model, settings.image_size)
        batch_bytes(section, settings.model, 2, size)


def batch_bytes(section: str, name: str, num_classes: int, size: int) -> int:
    """Bytes of activations that training takes a sample of ``size`` pixels.

    Raises:
        UserError: the model can't take images of that size.
    """
    from cwerm.algorithms.memory import estimate_batch_bytes
    from cwerm.algorithms.networks.timm_models import without_memory

    model = without_memory(
        lambda: create_classifier(f"{section}.model", name, num_classes, size, seed=0)
    )
    try:
        return estimate_batch_bytes(model, (3, size, size), training=True)
    except Exception as error:  # layers have words of their own for maps that are too small
        raise _no_such_size(f"{section}.model", name, size, error) from error


def classifier_size(section: str, name: str, size: int) -> int:
    """``size``, or the next side at which no border of an image is left out by a model of patches.

    Raises:
        UserError: the model can't take images of that size.
    """
    from cwerm.algorithms.networks.timm_models import fitting_size

    return fitting_size(lambda side: create_classifier(f"{section}.model", name, 2, side, 0), size)


def told_size(section: str, model: str, image_size: int | None, images: Artifact) -> int:
    """The side of the images that the section's model takes, said where it is not the one asked for."""
    asked = pixels.square_size(image_size, images)
    size = classifier_size(section, model, asked)
    if size != asked:
        console.note(
            f"{section} takes images of {size} pixels, as {model} would leave out a border of {asked}"
        )
    return size


def create_classifier(
    key: str, name: str, num_classes: int, size: int | None, seed: int
) -> nn.Module:
    """A freshly initialised classifier for RGB images of ``size`` pixels, the same for a seed.

    Without a size it is the model's own.

    Raises:
        UserError: timm has no such model, or the model can't take images of that size.
    """
    import timm
    import torch

    check_classifier_name(key, name)
    sized = {} if size is None else {"img_size": size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(name, num_classes=num_classes, **sized)
        except TypeError:  # only models with position embeddings take a size
            return timm.create_model(name, num_classes=num_classes)
        except Exception as error:
            raise _no_such_size(key, name, size, error) from error


def savable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: contiguous, on the CPU, and none that shares memory.

    Some networks use one tensor in several places, and have it under several names.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in seen else value
        seen.add(place)
    return found


def freeze_unused(model: nn.Module, size: int) -> None:
    """Freeze parameters that no output depends on: DDP would wait for their gradients."""
    import torch

    probe = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        outputs = probe(torch.rand(2, 3, size, size))
    outputs.sum().backward()
    for parameter, tried in zip(model.parameters(), probe.parameters(), strict=True):
        parameter.requires_grad_(parameter.requires_grad and tried.grad is not None)


def _no_such_size(key: str, name: str, size: int | None, error: Exception) -> UserError:
    import timm

    section = key.partition(".")[0]
    reason = (str(error).splitlines() or [""])[0]
    config = timm.get_pretrained_cfg(name)
    own = f" (its own is {config.input_size[-1]})" if config else ""
    return UserError(
        f"{section}.image_size: {name} can't take images of {size} pixels{reason and f' ({reason})'}; "
        f"set {section}.image_size{own} or choose another {section}.model"
    )
