"""One model of each of timm's families: features as plain timm's, a training step, or one line."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from families import NARROW, SMALL, make_narrow
from safetensors.torch import save
from torch import nn

from cwerm.algorithms.networks.features import Backbone, embed, load_backbone
from cwerm.algorithms.networks.timm_models import channels_last
from cwerm.algorithms.training.erm import weighted_loss
from cwerm.errors import UserError
from cwerm.stages.classifiers import batch_bytes, classifier_size, create_classifier, savable

SIZE = 64  # that of the jobs for small images
LARGEST = 30_000_000  # parameters of what is tried at all
LARGEST_OF_ITS_FAMILY = 200_000_000  # more take over 16 GB
FAMILIES = timm.list_modules()
pytestmark = pytest.mark.usefixtures("on_one_thread")


def random_images(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def plain_features(name: str, backbone: Backbone) -> np.ndarray:
    """What timm itself gives for the same images, from the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0)
    spec = backbone.spec
    if model.pretrained_cfg.get("fixed_input_size") and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(spec.size, spec.size))
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    images = torch.tensor(random_images(spec.size)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        return model.eval()((images - mean) / std).numpy()


def check_line(error: ValueError, words: str) -> None:
    assert words in str(error)
    assert "\n" not in str(error)


def check_features(name: str, size: int | None) -> bool:
    """Whether there are features, equal to timm's; False where the model is refused in one line."""
    try:
        backbone = load_backbone(name, "random", size)
    except ValueError as error:
        check_line(error, name)
        return False
    features = embed(backbone, random_images(backbone.spec.size))
    assert features.shape == (2, backbone.num_features)
    expected = plain_features(name, backbone)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features / scale, expected / scale, rtol=0, atol=1e-4)
    return True


def check_training(name: str, size: int) -> bool:
    """Whether a step moves the model and it can be saved; False where it is refused in one line."""
    try:
        size = classifier_size("train", name, size)
        need = batch_bytes("train", name, 3, size)
    except UserError as error:
        check_line(error, f"train.image_size: {name}")
        return False
    assert need > 0
    model = create_classifier("train.model", name, 3, size, 0)
    take_step(model, size)
    restore(name, model, size)
    return True


def take_step(model: nn.Module, size: int) -> None:
    channels_last(model).train()
    before = {key: value.clone() for key, value in model.named_parameters()}
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    loss = weighted_loss(model(images), torch.tensor([0, 1, 2, 0]), torch.ones(4), 4, 1, 0.0)
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert any(not torch.equal(before[key], value) for key, value in model.named_parameters())


def restore(name: str, model: nn.Module, size: int) -> None:
    """What is saved makes the same model again."""
    from safetensors.torch import load

    other = create_classifier("train.model", name, 3, size, 1)
    other.load_state_dict(load(save(savable(model.state_dict()))))
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("family", FAMILIES)
def test_small_images(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if family in NARROW:
        make_narrow(family, monkeypatch)
    name = SMALL.get(family) or timm.list_models(module=family)[0]
    check_features(name, SIZE)
    try:
        model = create_classifier("train.model", name, 3, SIZE, 0)
    except UserError as error:
        check_line(error, f"train.image_size: {name}")
        return
    try:
        take_step(model, SIZE)
    except (
        RuntimeError,
        AssertionError,
    ):  # the job's check raises the size, or has a line for that
        check_training(name, SIZE)


def skip_if_large(name: str, most: int = LARGEST) -> None:
    """Not every machine has the memory."""
    with torch.device("meta"):
        size = sum(value.numel() for value in timm.create_model(name).parameters())
    if size > most:
        pytest.skip(f"{size / 1e6:.0f} million parameters")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_at_its_own_size(family: str) -> None:
    name = SMALL.get(family) or timm.list_models(module=family)[0]
    skip_if_large(name, LARGEST_OF_ITS_FAMILY)
    size = timm.get_pretrained_cfg(name).input_size[-1]  # type: ignore[union-attr]
    assert check_features(name, None)
    assert check_training(name, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", timm.list_models())
def test_every_model_of_moderate_size(name: str) -> None:
    skip_if_large(name)
    check_features(name, SIZE)
    check_training(name, SIZE)
