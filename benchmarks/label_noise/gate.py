"""Draws whose labels are all right, on which nothing may change."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from label_noise.scenes import CELLS, Scene, draw_scene
from label_noise.sources import load_pool

__all__ = ["GATE_CELLS", "gate_scene"]

TRUSTED = {"1 trusted a class": (1,), "2 trusted a class": (2,)}
GATE_CELLS = [
    *("clean", "tail, clean", "100 classes, clean", "features of noise", "untrained network"),
    *TRUSTED,
]
SIZES = {"fashion": 5000, "digits": 1200, "mixture": 3000}
NOISE_DIMENSIONS = 64
MIXTURE_CLASSES, MIXTURE_DIMENSIONS, MIXTURE_SPREAD = 10, 32, 0.55


def gate_scene(data: str, cell: str, seed: int, root: str, cache: Path) -> Scene:
    """One draw; `mixture` is of overlapping normal classes, right by construction."""
    if data == "mixture":
        return _mixture(seed, TRUSTED.get(cell))
    pool = load_pool(
        data, seed, root, cache, "random" if cell == "untrained network" else "pretrained"
    )
    kind = CELLS[cell] if cell in CELLS else CELLS["clean"]
    scene = draw_scene(pool, data, kind, seed, TRUSTED.get(cell, ()), SIZES[data])
    if cell == "features of noise":
        generator = np.random.default_rng([seed, 0, 51])
        noise = generator.normal(size=(len(scene.given), NOISE_DIMENSIONS))
        scene = scene._replace(features=noise.astype(np.float32))
    return scene


def _mixture(seed: int, trusted: tuple[int] | None) -> Scene:
    """Normal classes of unequal sizes; the best classifier there is errs on about a tenth."""
    generator = np.random.default_rng([seed, 0, 52])
    centres = MIXTURE_SPREAD * generator.normal(size=(MIXTURE_CLASSES, MIXTURE_DIMENSIONS))
    shares = generator.dirichlet(np.full(MIXTURE_CLASSES, 8.0))
    labels = generator.choice(MIXTURE_CLASSES, SIZES["mixture"], p=shares)
    known = np.repeat(np.arange(MIXTURE_CLASSES), trusted[0] if trusted else 0)

    def draw(classes: np.ndarray) -> np.ndarray:
        spread = generator.normal(size=(len(classes), MIXTURE_DIMENSIONS))
        return (centres[classes] + spread).astype(np.float32)

    features = draw(labels)
    right = np.zeros(len(labels), bool)
    pair = (draw(known), known) if trusted else None
    rows = np.arange(len(labels))
    return Scene(features, labels, labels.copy(), right, MIXTURE_CLASSES, pair, False, seed, rows)
