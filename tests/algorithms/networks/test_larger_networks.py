"""A larger network's file holds a smaller one's names and shapes, and is refused all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from cwerm.algorithms.networks.features import embed, load_backbone


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("resnet18", "resnet34"),
        ("efficientnet_b0", "efficientnet_b1"),
        pytest.param("resnet50", "seresnet50", marks=pytest.mark.slow),
        pytest.param("resnet50_gn", "resnet50", marks=pytest.mark.slow),
        pytest.param("poolformer_s12", "poolformer_s24", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "convnext_small", marks=pytest.mark.slow),
        pytest.param(
            "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", marks=pytest.mark.slow
        ),
        pytest.param("resnet50", "resnet101", marks=pytest.mark.slow),
        pytest.param("resnet26", "resnet50", marks=pytest.mark.slow),
    ],
)
def test_is_refused(name: str, larger: str, tmp_path: Path) -> None:
    torch.save(timm.create_model(larger).state_dict(), tmp_path / "larger.pth")
    with pytest.raises(ValueError, match=f"is of a larger network than {name}: it holds .* more"):
        load_backbone(name, str(tmp_path / "larger.pth"))


@pytest.mark.parametrize(
    ("name", "torchvisions"),
    [
        ("regnety_004", "regnet_y_400mf"),
        pytest.param("densenet121", "densenet121", marks=pytest.mark.slow),
        pytest.param("resnet18", "resnet18", marks=pytest.mark.slow),
    ],
)
def test_torchvisions_names_by_timms_own_conversion(
    name: str, torchvisions: str, tmp_path: Path
) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network = models.get_model(torchvisions, weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "file.pth")
    backbone = load_backbone(name, str(tmp_path / "file.pth"), 64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    spec = backbone.spec
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    setattr(
        network, "classifier" if name.startswith("dense") else "fc", torch.nn.Identity()
    )  # what stands before it are the features
    with torch.no_grad():
        expected = network((torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    np.testing.assert_allclose(embed(backbone, pixels), expected, rtol=1e-3, atol=1e-5)


def test_dinov2_with_registers_as_published(tmp_path: Path) -> None:
    """Another name for the registers, a place more among the positions, a mask token left over."""
    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, depth=2).eval()
    state = {
        {"reg_token": "register_tokens"}.get(key, key): value
        for key, value in network.state_dict().items()
    }
    width = state["pos_embed"].shape[2]
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, width), state["pos_embed"]], 1)
    state["mask_token"] = torch.zeros(1, width)
    from cwerm.algorithms.networks.weight_files import WeightFile
    from cwerm.algorithms.networks.weight_matching import load_weights_into

    fresh = timm.create_model(name, num_classes=0, depth=2)
    told = load_weights_into(fresh, name, WeightFile(str(tmp_path / "file"), state))
    assert told == "takes what lies in the file, as timm converts it"
    for key, value in network.state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[key], value)
