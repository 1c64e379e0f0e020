"""Sizes of images that a network of patches takes whole, and hubs that can't be reached."""

from __future__ import annotations

import time

import numpy as np
import pytest
import timm
import torch
from torch import nn

from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.networks.timm_models import channels_last, fitting_size
from cwerm.errors import UserError
from cwerm.stages.classifiers import batch_bytes, classifier_size, create_classifier, freeze_unused


def corner_counts(module: nn.Module, side: int) -> bool:
    """Whether the output changes with the last pixel of the last row."""
    module.eval()
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[..., -1, -1] += 10
    with torch.no_grad():
        return bool((module(image) != module(other)).any())


@pytest.mark.parametrize(("asked", "taken"), [(28, 32), (32, 32)])
def test_the_next_size_at_which_no_border_is_lost(asked: int, taken: int) -> None:
    name = "vit_tiny_patch16_224"
    assert classifier_size("train", name, asked) == taken
    assert corner_counts(create_classifier("train.model", name, 3, taken, 0), taken)
    if asked != taken:
        assert not corner_counts(create_classifier("train.model", name, 3, asked, 0), asked)
    backbone = load_backbone(name, "random", asked)
    assert backbone.spec.size == taken
    told = f"takes images of {taken} pixels, as vit_tiny_patch16_224 would leave out a border of {asked}"
    assert backbone.remarks == ((told,) if asked != taken else ())
    pixels = np.random.default_rng(0).integers(0, 256, (1, taken, taken, 3), np.uint8)
    other = pixels.copy()
    other[:, -1, -1] ^= 255
    assert np.abs(embed(backbone, pixels) - embed(backbone, other)).max() > 0


@pytest.mark.parametrize("name", ["resnet20", "test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("size", [28, 50])
def test_networks_without_patches_take_what_is_asked(name: str, size: int) -> None:
    assert classifier_size("train", name, size) == size
    assert load_backbone("test_resnet", "random", size).remarks == ()


def test_a_size_that_a_constructor_refuses_is_raised_to_its_patches() -> None:
    with pytest.raises(AssertionError):
        timm.create_model("xcit_nano_12_p16_224", img_size=28)
    assert classifier_size("train", "xcit_nano_12_p16_224", 28) == 32


@pytest.mark.parametrize("name", ["maxvit_rmlp_pico_rw_256", "halonet26t"])
def test_a_size_that_does_not_do_is_one_line(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"train.image_size: {name} can't take images of 28"
    ) as error:
        batch_bytes("train", name, 3, classifier_size("train", name, 28))
    assert "its own is 256" in str(error.value)
    assert "\n" not in str(error.value)


def test_no_network_of_patches_near() -> None:
    class Never(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 2, 16, 16)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.cut(images[..., :16, :16]).flatten(1)

    assert fitting_size(lambda side: Never(), 28) == 28


def test_layers_of_five_dimensions_and_buffers_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3))
    module.register_buffer("table", torch.zeros(2, 3, 4, 5))
    channels_last(module)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module[1].weight.is_contiguous()
    assert module.table.is_contiguous()
    images = torch.rand(2, 3, 8, 8)
    plain = nn.Conv2d(3, 4, 3)
    plain.load_state_dict(module[0].state_dict())
    torch.testing.assert_close(module[0](images), plain(images))


def test_parameters_that_nothing_uses_are_frozen() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = nn.Linear(3, 2), nn.Linear(3, 2)
            self.other.weight.requires_grad_(False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.used(images.mean((2, 3)))

    model = Unused()
    state = torch.random.get_rng_state()
    freeze_unused(model, 8)
    assert torch.equal(state, torch.random.get_rng_state())
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == ["used.weight", "used.bias"]
    assert all(value.grad is None for value in model.parameters())


def test_pretrained_without_a_network_is_one_line_within_seconds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"127\.0\.0\.1 can't be reached .* give a file") as error:
        load_backbone("resnet18.a1_in1k")
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)


def test_a_side_that_only_the_forward_pass_refuses_is_raised_too() -> None:
    with pytest.raises(AssertionError):
        timm.create_model("test_vit", img_size=28)(torch.zeros(1, 3, 28, 28))
    assert classifier_size("train", "test_vit", 28) == 32
