"""Where cwerm's first version failed, and what comes of it now: the table in docs/results.md.

    python benchmarks/label_failures.py OUT [--seeds 0 1 2]

On Fashion-MNIST as in label_errors.py, whose features in OUT it shares.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from _report import surroundings
from label_noise.gate import gate_scene
from label_noise.scenes import CELLS, Cell, Scene, draw_scene
from label_noise.sources import load_pool
from label_noise.tables import markdown

import cwerm
from cwerm.algorithms.detection import auroc

ONE, TWO, TEN = (1,), (2,), (10,)
ROWS: list[tuple[str, Cell | str, tuple[int, ...]]] = [
    ("40% symmetric, 1 trusted a class", CELLS["symmetric 40"], ONE),
    ("40% symmetric, 2 trusted a class", CELLS["symmetric 40"], TWO),
    ("20% by instance, nothing clean", CELLS["instance 20"], ()),
    ("20% by instance, 10 trusted a class", CELLS["instance 20"], TEN),
    ("10% symmetric, nothing clean", CELLS["symmetric 10"], ()),
    ("annotators' confusions, nothing clean", CELLS["annotators"], ()),
    ("open set, 20%, nothing clean", CELLS["open set 20"], ()),
    ("100 classes, right labels", "100 classes, clean", ()),
    ("100 classes, 40% symmetric", Cell("symmetric", 0.4, clusters=100), ()),
    ("features of noise, right labels", "features of noise", ()),
    ("right labels, nothing clean", CELLS["clean"], ()),
]
HEAD = [
    "",
    "wrong",
    "found",
    "weights of wrong",
    "right ones at 0",
    "effective size",
    "largest",
    "AUROC",
]


def measure(scene: Scene) -> list[float]:
    """The figures of one draw, in the order of `HEAD`."""
    found = cwerm.find_label_errors(
        scene.features, scene.given, **scene.trusted_samples, seed=scene.seed
    )
    weight, wrong = np.asarray(found.weight, np.float64), scene.wrong
    weight = weight / weight.mean()
    return [
        float(wrong.mean()),
        found.noise_rate if found.noise_found else 0.0,
        float(weight[wrong].mean()) if wrong.any() else np.nan,
        float((weight[~wrong] == 0).mean()),
        float(weight.sum() ** 2 / (weight @ weight) / len(weight)),
        float(weight.max()),
        float(auroc(np.asarray(found.quality), wrong)) if wrong.any() else np.nan,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-root", default="data")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(surroundings())
    body, cache = [], arguments.out / "features"
    for name, cell, trusted in ROWS:
        figures = []
        for seed in arguments.seeds:
            if isinstance(cell, str):
                scene = gate_scene("fashion", cell, seed, arguments.data_root, cache)
            else:
                pool = load_pool("fashion", seed, arguments.data_root, cache)
                scene = draw_scene(pool, "fashion", cell, seed, trusted)
            figures.append(measure(scene))
        pairs = [(min(column), max(column)) for column in zip(*figures, strict=True)]
        cells = ["" if np.isnan(low) else f"{low:.2f}-{high:.2f}" for low, high in pairs]
        body.append([name, *cells])
    print(markdown(HEAD, body))


if __name__ == "__main__":
    main()
