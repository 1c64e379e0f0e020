"""Files of weights as people have them: right, or refused in one line that says what the file is."""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cwerm.algorithms.networks.features import embed, load_backbone

NAME = "test_resnet"  # a third of a million parameters, with BatchNorm
State = dict[str, Tensor]


def shaken(model: nn.Module, seed: int = 1) -> nn.Module:
    """Every tensor drawn anew, so that a swap shows; variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith("running_var") else tensor + 0.2 * noise)
    return model.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return shaken(timm.create_model(NAME, num_classes=7))


@pytest.fixture(scope="module")
def state(network: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def features_of(path: Path, name: str = NAME, size: int = 32) -> np.ndarray:
    return embed(load_backbone(name, str(path), size), pixels(size))


def pixels(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)


def right(network: nn.Module, mean: Any = None, std: Any = None, size: int = 32) -> np.ndarray:
    """What timm itself gives for the images, with the weights that the file was made from."""
    config = timm.data.resolve_model_data_config(network)
    images = torch.tensor(pixels(size)).permute(0, 3, 1, 2) / 255
    mean, std = (
        torch.tensor(own or config[key])[:, None, None]
        for own, key in ((mean, "mean"), (std, "std"))
    )
    with torch.no_grad():
        maps = network.forward_features((images - mean) / std)  # type: ignore[operator]
        return network.forward_head(maps, pre_logits=True).numpy()  # type: ignore[operator]


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def without_classifier(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


FILES: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "with its optimizer": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"step": torch.ones(1)}}},
    },
    "averaged weights come first": lambda s: {"model": zeros(s), "model_ema": s},
    "averaged weights alone": lambda s: {"ema": s},
    "ema of a module": lambda s: {"ema": {"module": s}},
    "teacher and student": lambda s: {"student": zeros(s), "teacher": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.1},
    "net, acc, epoch": lambda s: {"net": s, "acc": 93.1, "epoch": 3},
    "one mapping of another name": lambda s: {"mine": s, "optim_state": {"a": torch.ones(2)}},
    "module.": lambda s: under("module.", s),
    "_orig_mod.module.": lambda s: under("_orig_mod.module.", s),
    "a metric beside the model": lambda s: {
        "state_dict": {**under("model.", s), "acc.tp": torch.ones(3)}
    },
    "a backbone and a head of another size": lambda s: {
        **under("backbone.", without_classifier(s)),
        "proj.weight": torch.ones(9, 5),
    },
    "settings of argparse": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)},
    "a score of NumPy's": lambda s: {"state_dict": s, "best": np.float64(0.9), "k": np.int64(3)},
    "counters as plain numbers": lambda s: {
        k: v.item() if v.ndim == 0 else v for k, v in s.items()
    },
    "no counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    "counters of a profiler": lambda s: {**s, "layer1.0.total_ops": torch.ones(1)},
    "a head for pre-training": lambda s: {**s, "projection_head.0.weight": torch.ones(3, 3)},
}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


@pytest.mark.parametrize("kind", FILES)
def test_gives_the_networks_features(
    kind: str, network: nn.Module, state: State, tmp_path: Path
) -> None:
    torch.save(FILES[kind](state), tmp_path / "file.pth")
    np.testing.assert_allclose(
        features_of(tmp_path / "file.pth"), right(network), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", ["file.safetensors", "file.pth", "file"])
@pytest.mark.parametrize("prefix", ["", "model.", "visual.trunk."])
def test_the_content_tells_the_format(
    name: str, prefix: str, network: nn.Module, state: State, tmp_path: Path
) -> None:
    save_file(under(prefix, state), tmp_path / name)
    np.testing.assert_allclose(features_of(tmp_path / name), right(network), rtol=1e-4, atol=1e-5)
    torch.save(under(prefix, state), tmp_path / name)
    np.testing.assert_allclose(features_of(tmp_path / name), right(network), rtol=1e-4, atol=1e-5)


def test_half_precision_is_rounded_and_no_more(
    network: nn.Module, state: State, tmp_path: Path
) -> None:
    rounded = timm.create_model(NAME, num_classes=7).eval()
    rounded.load_state_dict(
        {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
    )
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
        tmp_path / "half.safetensors",
    )
    np.testing.assert_allclose(
        features_of(tmp_path / "half.safetensors"), right(rounded), rtol=1e-4, atol=1e-5
    )


def write(path: Path, content: Any) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


REFUSED: dict[str, tuple[Callable[[State, Path], Any], str]] = {
    "a pointer": (
        lambda s, p: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46827520\n",
        "pointer of Git LFS",
    ),
    "a page": (lambda s, p: b"<!DOCTYPE html><html><head><title>Sign in</title>", "web page"),
    "nothing": (lambda s, p: b"", "is empty"),
    "noise": (lambda s, p: os.urandom(4000), "no readable checkpoint"),
    "NumPy": (lambda s, p: b"\x93NUMPY\x01\x00", "NumPy"),
    "a list": (lambda s, p: [torch.ones(2)], "holds a list"),
    "no tensors": (lambda s, p: {"epoch": 3, "args": {"lr": 0.1}}, "no tensors by name"),
    "a whole module": (lambda s, p: nn.Linear(2, 2), r"without running code \(torch.nn"),
    "a bomb": (lambda s, p: {"state_dict": s, "x": Bomb(p / "ran")}, "without running code"),
    "two networks": (
        lambda s, p: {**under("student.", s), **under("teacher.", s)},
        "more than once, below 'student' and 'teacher'",
    ),
    "two sets": (lambda s, p: {"one": s, "two": s}, r"several sets of tensors \(one, two\)"),
    "a tensor less": (
        lambda s, p: {k: v for k, v in s.items() if k != "layer3.0.bn1.bias"},
        "does not fit test_resnet, first at layer3.0.bn1.bias",
    ),
    "another shape": (
        lambda s, p: {**s, "layer3.0.bn1.bias": torch.ones(3)},
        r"first at layer3.0.bn1.bias \(shape \(3,\) instead of",
    ),
    "a block more": (
        lambda s, p: {**s, "layer3.7.conv1.weight": torch.ones(3)},
        "of a larger network than test_resnet: it holds 1 tensors more, such as layer3.7",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_one_line(kind: str, state: State, tmp_path: Path) -> None:
    make, reason = REFUSED[kind]
    write(tmp_path / "file.pth", make(state, tmp_path))
    with pytest.raises(ValueError, match=reason) as error:
        load_backbone(NAME, str(tmp_path / "file.pth"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_truncated_and_packed_files(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "whole.pth")
    save_file(state, tmp_path / "whole.safetensors")
    for name in ("whole.pth", "whole.safetensors"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / "cut").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="cut is no readable checkpoint"):
            load_backbone(NAME, str(tmp_path / "cut"))
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.write(tmp_path / "whole.pth", "whole.pth")
    with pytest.raises(ValueError, match="archive of other files; unpack it"):
        load_backbone(NAME, str(tmp_path / "weights.zip"))


def test_a_model_that_cwerm_trained(network: nn.Module, state: State, tmp_path: Path) -> None:
    """Its own normalisation and size are taken, and its name is checked."""
    mean, std = (0.3, 0.2, 0.1), (0.5, 0.6, 0.7)
    about = {"model": NAME, "class_names": ["a"], "mean": mean, "std": std, "image_size": 48}
    save_file(state, tmp_path / "model.safetensors", {"cwerm": json.dumps(about)})
    backbone = load_backbone(NAME, str(tmp_path / "model.safetensors"))
    assert (backbone.spec.size, backbone.spec.mean, backbone.spec.std) == (48, mean, std)
    np.testing.assert_allclose(
        embed(backbone, pixels(48)), right(network, mean, std, 48), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="is of test_resnet, not of resnet18"):
        load_backbone("resnet18", str(tmp_path / "model.safetensors"))


def test_a_folder_of_timms(network: nn.Module, state: State, tmp_path: Path) -> None:
    own = {**network.pretrained_cfg, "num_classes": 7, "mean": (0.3, 0.2, 0.1), "url": ""}  # type: ignore[dict-item]
    config = {"architecture": NAME, "num_classes": 7, "pretrained_cfg": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors")
    backbone = load_backbone(f"local-dir:{tmp_path}")
    assert backbone.spec.mean == (0.3, 0.2, 0.1)
    np.testing.assert_allclose(
        embed(backbone, pixels(160)),
        right(network, mean=backbone.spec.mean, size=160),
        rtol=1e-4,
        atol=1e-5,
    )
    for wrong, reason in (
        ("local-dir:here", "absolute path"),
        ("local-dir:/nowhere", "no config.json"),
    ):
        with pytest.raises(ValueError, match=reason):
            load_backbone(wrong)
    with pytest.raises(ValueError, match="comes with its own weights"):
        load_backbone(f"local-dir:{tmp_path}", "random")
