"""Embedding from pixels in the host's memory, beside the bare backbone on the device; and decoding."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from measure import Row, decoded, photograph, seconds_a_step, waits_a_step

from cwerm.algorithms.networks.features import embed, load_backbone
from cwerm.algorithms.networks.preprocessing import preprocess
from cwerm.algorithms.torch_state import autocast

SIDE, BATCH = 224, 128


def rows(device: torch.device, small: bool) -> Iterator[Row]:
    """Images a second of a ViT, and of one core that decodes."""
    name = "vit_tiny_patch16_224" if small else "vit_base_patch16_224"
    size = 4 if small else BATCH
    part = 2 * size if small else 8 * size  # as many as one part of the store has
    backbone = load_backbone(name, "random", SIDE)
    backbone.module.to(device)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (part, SIDE, SIDE, 3), np.uint8)
    floats = torch.randn(size, 3, SIDE, SIDE, device=device)
    rounds = 1 if small else 5
    for precision in ("float32", "bfloat16"):

        def ours(precision: str = precision) -> object:
            return embed(backbone, pixels, device, precision, size)

        def bare(precision: str = precision) -> object:
            with torch.inference_mode(), autocast(device, precision):
                return backbone.module(floats)

        taken = seconds_a_step(ours, 1, rounds)
        waits = waits_a_step(ours, 1)
        alone = seconds_a_step(bare, part // size, rounds)
        title = f"extract {name}, batch {size}, {precision}; waits a part of {part}"
        yield Row(title, part / taken, size / alone, "images/s", waits)
    yield _decoding(backbone.spec, 4 if small else 200)


def _decoding(spec: object, images: int) -> Row:
    """One core, 500 x 375 JPEG to a square; beside decoding alone."""
    data, taken = photograph(), []
    torch.set_num_threads(1)
    for work in (lambda: preprocess(decoded(data), spec), lambda: decoded(data)):  # type: ignore[arg-type]
        work()
        started = time.perf_counter()
        for _ in range(images):
            work()
        taken.append((time.perf_counter() - started) / images)
    return Row(
        "decode and resize; bare: decode", 1 / taken[0], 1 / taken[1], "images/s a core", None
    )
