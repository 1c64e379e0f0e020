"""With how few images wrong labels are found, and whether it is said where they can't be told.

    python benchmarks/label_few.py OUT [--draws 8] [--trusted 20]

Images of Fashion-MNIST and scikit-learn's digits, a fifth of their labels made wrong or none. OUT is the
folder of label_errors.py, for the features. A row a cell: in how many draws wrong labels were found, and in
how many it was said that so few can't tell.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from label_noise.sources import DATA, Pool, load_pool
from label_noise.tables import markdown

import cwerm

SIZES = ((100, 10), (150, 3), (300, 10), (600, 10))  # images, classes
RATE = 0.187  # 28 of 150
FIRST_SEED = 1000


def fitted(
    pool: Pool, size: tuple[int, int], noise: str, trusted: int, seed: int
) -> tuple[bool, bool]:
    """Whether wrong labels were found, and whether it is undecided."""
    (count, classes), random = size, np.random.default_rng([seed, *size])
    chosen = np.sort(random.permutation(len(pool.names))[:classes])
    rows = random.permutation(np.flatnonzero(np.isin(pool.labels, chosen)))
    rows, others = rows[:count], rows[count:]
    truth = np.searchsorted(chosen, pool.labels)
    given = truth[rows]
    if noise != "clean":
        wrong = random.random(count) < RATE
        steps = 1 if noise == "pair" else random.integers(1, classes, wrong.sum())
        given[wrong] = (given[wrong] + steps) % classes
    known = np.concatenate([others[truth[others] == label][:trusted] for label in range(classes)])
    more = {"trusted_features": pool.features[known], "trusted_labels": truth[known]}
    posterior = cwerm.LabelPosterior(classes).fit(
        pool.features[rows], given, **(more if trusted else {})
    )
    return posterior.open, posterior.undecided


def main() -> None:
    """Print a row for each cell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--trusted", type=int, default=0, help="samples a class")
    parser.add_argument("--data-root", default="data")
    arguments = parser.parse_args()
    body = []
    for data in DATA:
        pool = load_pool(data, 0, arguments.data_root, arguments.out / "features")
        for size in SIZES:
            for noise in ("clean", "symmetric", "pair"):
                seeds = range(FIRST_SEED, FIRST_SEED + arguments.draws)
                made = [fitted(pool, size, noise, arguments.trusted, seed) for seed in seeds]
                found, undecided = np.sum(made, axis=0)
                body.append([data, str(size[0]), str(size[1]), noise, f"{found}", f"{undecided}"])
                print(*body[-1], flush=True)
    print(markdown(["", "images", "classes", "labels", "found", "can't tell"], body))


if __name__ == "__main__":
    main()
