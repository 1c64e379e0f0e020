"""Whether the order of a stream trains as well as a shuffle of everything.

    python benchmarks/streaming_shuffle.py [--seeds 3] [--epochs 5]

Plain training of a ResNet-20 on the sample, in parts of 64 images, of which a stream mixes 32 at a time; and
the same sorted by class, which is the hard case: all images of a part are then of one class.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _report import surroundings

import cwerm
from cwerm.algorithms.training.streaming.order import stream_batches
from cwerm.job.tree import parse_job

ROWS, BATCH, WINDOW = 64, 128, 32
FOLDER = Path(cwerm.__file__).parent / "data" / "sample"


def main() -> None:
    """Print test accuracies, and the largest share of one part in a batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    print(surroundings())
    train = pq.read_table(FOLDER / "train.parquet")
    shares = [
        np.bincount(batch // ROWS).max() / len(batch)
        for batch in stream_batches(
            np.full(len(train) // ROWS, ROWS), len(train) // ROWS * ROWS, BATCH, WINDOW, 0, 0
        )
    ]
    print(f"largest share of one part in a batch: {max(shares):.2f} (at most .35 asked for)")
    with tempfile.TemporaryDirectory() as folder:
        order = pc.sort_indices(train, [("label", "ascending")])
        for name, table in (("as it is", train), ("sorted by class", train.take(order))):
            source = Path(folder, f"{name}.parquet")
            pq.write_table(table, source)
            for arm, held in (("shuffled whole", 2**32), ("streamed", 0)):
                found = []
                for seed in range(arguments.seeds):
                    tree = {
                        "name": f"{name}-{arm}-{seed}".replace(" ", "-"),
                        "seed": seed,
                        "storage": f"{folder}/store",
                        "method": "erm",
                        "data": {
                            "source": str(source),
                            "test": str(FOLDER / "test.parquet"),
                            "rows_per_part": ROWS,
                        },
                        "train": {
                            "model": "resnet20",
                            "epochs": arguments.epochs,
                            "batch_size": BATCH,
                            "memory_bytes": held,
                            "window": WINDOW,
                        },
                    }
                    summary = cwerm.run(parse_job(tree)).summary
                    found.append(100 * summary["test_accuracy"])
                mean, spread = statistics.mean(found), statistics.stdev(found)
                each = ", ".join(f"{value:.2f}" for value in found)
                print(f"{name}, {arm}: {mean:.2f} +- {spread:.2f} % ({each})", flush=True)


if __name__ == "__main__":
    main()
