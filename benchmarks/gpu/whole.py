"""The whole method beside plain training: embed, select, learn weights, spread them, train."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import timm
import torch
from measure import Row, settle

import cwerm.algorithms.networks.models  # noqa: F401  registers resnet20
from cwerm.algorithms.coreset import select_coreset
from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.reweighting.metaweight import MetaWeightNet
from cwerm.algorithms.spreading.broadcast import broadcast_weights
from cwerm.algorithms.training.batches import Normaliser, PixelBatches
from cwerm.algorithms.training.fit import fit
from cwerm.algorithms.training.ranks import Ranks
from cwerm.algorithms.training.recipe import Precision, Recipe

CLASSES, SIDE, RATIO, META = 10, 32, 0.01, 1000


def rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Seconds of CW-ERM beside those of ERM; and of its parts, each beside ERM's."""
    images, epochs, meta_epochs = (400, 1, 2) if small else (50_000, 15, 120)
    precision: Precision = "bfloat16" if device.type == "cuda" else "float32"
    recipe = Recipe(epochs=epochs, batch_size=128, crop_padding=4, flip=True, precision=precision)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 3, SIDE, SIDE), np.uint8)
    labels = random.integers(0, CLASSES, images)
    ones, taken = np.ones(images, np.float32), {}
    _train(pixels[:256], labels[:256], ones[:256], Recipe(epochs=1), device)  # warm
    started = _now()
    _train(pixels, labels, ones, recipe, device)
    plain = _now() - started

    backbone = load_backbone("resnet18", "random", 64)
    started = _now()
    squares = pixels.transpose(0, 2, 3, 1).repeat(2, axis=1).repeat(2, axis=2)
    features = embed(backbone, squares, device, precision, 512)
    taken["extract (resnet18, 64 px)"] = _now() - started
    started = _now()
    coreset = select_coreset(features, labels, max(RATIO, 2 * CLASSES / images))
    taken["select"] = _now() - started
    started = _now()
    meta = random.choice(images, min(META, images // 4), replace=False)
    net = MetaWeightNet(epochs=meta_epochs, device=device)
    learned = net.fit(features[coreset], labels[coreset], features[meta], labels[meta])
    taken["learn weights"] = _now() - started
    started = _now()
    weights, _, _ = broadcast_weights(features, labels, coreset, learned)
    taken["broadcast"] = _now() - started
    started = _now()
    _train(pixels, labels, weights, recipe, device)
    taken["train"] = _now() - started
    title = f"{images:,} images, {epochs} epochs of resnet20"
    yield Row(f"CW-ERM; bare: ERM; {title}", sum(taken.values()), plain, "s", None)
    for name, seconds in taken.items():
        yield Row(f"of it {name}", seconds, plain, "s", None)


def _now() -> float:
    settle()
    return time.perf_counter()


def _train(
    pixels: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    recipe: Recipe,
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    ranks, normalise = Ranks(device=device), Normaliser.of(pixels)
    held, right, factors = (torch.from_numpy(a).to(device) for a in (pixels, labels, weights))
    batches = PixelBatches(held, right, factors, normalise, recipe, ranks)
    fit(timm.create_model("resnet20", num_classes=CLASSES), batches, recipe, ranks)
