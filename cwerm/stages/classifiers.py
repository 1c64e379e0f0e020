"""Classifiers by their timm names."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwerm.algorithms.networks.names import OWN_MODELS
from cwerm.errors import UserError, blame, did_you_mean
from cwerm.job.tree import Job
from cwerm.stages import pixels
from cwerm.stages.backbone_weights import weights_file
from cwerm.store.artifacts import Artifact
from cwerm.terminal import console

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cwerm.algorithms.networks.preprocessing import InputSpec


def check_classifier_name(key: str, name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: naming the job's ``key`` and near names.
    """
    if name in OWN_MODELS:
        return  # loading timm takes seconds, which a run that finds all made has no other use for
    import timm

    from cwerm.algorithms.networks.timm_models import is_known, source_of

    if source_of(name):
        raise UserError(
            f"{key}: '{name}' names weights in a place; give timm's name of the model, and where its weights "
            "are in train.weights"
        )
    if not is_known(name):
        near = did_you_mean(name, [*timm.list_models(), *OWN_MODELS])
        hint = near or "; see timm.list_models() for the names"
        raise UserError(f"{key}: unknown model '{name}'{hint}")


def check_classifier(job: Job, section: str) -> None:
    """Check a section's model, and where its size is given whether it takes images of it.

    Raises:
        UserError: as `check_classifier_name` and `batch_bytes`.
    """
    settings = getattr(job, section)
    if section == "train" and settings.input == "features":
        check_head(job)
        return
    name, _, tag = settings.model.partition(".")
    check_classifier_name(f"{section}.model", settings.model)
    if section == "train" and settings.weights != "random":
        check_start(job)
    elif tag:
        console.note(
            f"{section}.model: '{tag}' names weights; training starts from random ones of {name}"
        )
    if settings.image_size is not None:
        size = classifier_size(section, settings.model, settings.image_size)
        batch_bytes(section, settings.model, 2, size)


def check_start(job: Job) -> None:
    """Check that the network takes the weights of ``train.weights``; what was chosen of them is told.

    Raises:
        UserError: naming the key.
    """
    train = job.train
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_file(train.weights, Path(folder), job.s3, "train.weights")
        _, spec, remarks = create_pretrained(train.model, weights, 2, train.image_size, 0)
    own = train.image_size is None and f"{spec.size} pixels, or less for small images"
    for remark in filter(None, [*remarks, own and f"takes images of {own}: train.image_size"]):
        console.note(f"train: {remark}")
    if "lr" not in train.model_fields_set:
        console.note(
            f"train.lr: {train.lr:g} suits random weights; to fine-tune, 0.01 or less is usual"
        )


def create_pretrained(
    name: str, weights: str, num_classes: int, size: int | None, seed: int
) -> tuple[nn.Module, InputSpec, tuple[str, ...]]:
    """As `create_classifier`, with weights in all but its last layer; what they expect of images; remarks.

    Raises:
        UserError: the weights are not of this model, or the model takes no images of that size.
    """
    from cwerm.algorithms.networks.features import load_backbone

    with blame("train.weights"):
        backbone = load_backbone(name, weights, size)
    model: Any = create_classifier("train.model", name, num_classes, backbone.spec.size, seed)
    state = backbone.module.state_dict()
    missing, unexpected = model.load_state_dict(state, strict=False)
    head = model.get_classifier()
    own = {id(value) for value in head.parameters()} if hasattr(head, "parameters") else set()
    named = {key for key, value in model.named_parameters() if id(value) in own}
    if unexpected or {*missing} != named:
        raise UserError(
            f"train.weights: {name} has a last layer that can't be told from the rest; choose another model"
        )
    return model, backbone.spec, backbone.remarks


def check_head(job: Job) -> None:
    """Check what of the section ``train`` is different for a head on features.

    Raises:
        UserError: naming the key.
    """
    from cwerm.algorithms.networks.heads import HEADS

    train = job.train
    if train.model not in HEADS:
        hint = did_you_mean(train.model, HEADS)
        raise UserError(
            f"train.model: '{train.model}' is no head on features{hint}; with train.input features give "
            f"{' or '.join(HEADS)}, or leave it out"
        )
    idle_keys = {"weights": "random", "image_size": None, "crop_padding": 0, "flip": False}
    idle_keys |= {"crop": "padded", "augment": "none", "cutmix": 0}
    for key, idle in idle_keys.items():
        if getattr(train, key) != idle:
            raise UserError(
                f"train.{key}: it is of images, and has no effect with train.input features; leave it out"
            )


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


def pretrained_size(name: str, images: Artifact) -> int:
    """Side of the images for a pretrained model: its own, unless they are small and it takes others, too."""
    import timm

    config = timm.get_pretrained_cfg(name)
    small = None if config.fixed_input_size else pixels.pretrained_side(images)
    return small or int(config.input_size[-1])


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

    import cwerm.algorithms.networks.models  # noqa: F401  registers the models for small images

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
