"""JPEGs to a backbone's squares: by torch's resizing, as extract does it, against Pillow's.

    python benchmarks/decoding.py [--rounds 7]

Images of 500 x 375 pixels to 224, bicubic, on one thread; processor seconds, both in each round.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from _report import print_ratio, print_table, surroundings
from PIL import Image

from cwerm.algorithms.networks import preprocessing
from cwerm.algorithms.networks.preprocessing import InputSpec, preprocess
from cwerm.data.images import decode

IMAGES, SIZE = 60, (500, 375)
SPEC = InputSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875, "center")


def _jpeg(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    smooth = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-12, 13, smooth.shape), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _by_pillow(data: bytes) -> np.ndarray:
    with mock.patch.object(preprocessing, "OF_TORCH", ()):
        return preprocess(decode(data), SPEC)


def _by_torch(data: bytes) -> np.ndarray:
    return preprocess(decode(data), SPEC)


def main() -> None:
    """Print images a processor second, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(surroundings())
    images = [_jpeg(seed) for seed in range(IMAGES)]
    contestants: dict[str, Callable[[bytes], np.ndarray]] = {
        "Pillow": _by_pillow,
        "Pillow, resized by torch": _by_torch,
        "decoding alone": lambda data: np.asarray(decode(data)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, contestant in contestants.items():
            started = time.process_time()
            for data in images:
                contestant(data)
            rates[name].append(len(images) / (time.process_time() - started))
    print_table(f"{SIZE[0]} x {SIZE[1]} to {SPEC.size}", "images/CPU-s", rates)
    pillow, torchs, _ = rates.values()
    print_ratio("torch / Pillow", torchs, pillow, " (at least 2 is asked for)")
    found = [(_by_torch(data).astype(int) - _by_pillow(data)) for data in images]
    apart = np.abs(np.stack(found))
    print(
        f"largest difference {apart.max()} level(s), in {100 * (apart > 0).mean():.2f} % of values"
    )


if __name__ == "__main__":
    main()
