"""What a GPU is kept busy with: our loops beside the bare model's step on the same device.

    python benchmarks/gpu OUT                  # all parts, each a few minutes
    python benchmarks/gpu OUT --only meta      # one; OUT keeps what others have measured
    python benchmarks/gpu OUT --small          # a look at whether it works, on a CPU too

It needs torch, timm, NumPy, pyarrow, Pillow, SciPy and jaxtyping, and this checkout: no Ray, no FAISS, no
pydantic. What it times is the loop of `cwerm.algorithms` as it is, on images drawn at random. Waits are
host synchronisations in the steps that are timed, as torch warns of them; a CPU has none.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import compiled
import extract
import meta
import train
import whole
from measure import Row, device, surroundings

PARTS = {
    "train": train.rows,
    "extract": extract.rows,
    "meta": meta.rows,
    "compile": compiled.rows,
    "whole": whole.rows,
}


def main() -> None:
    """Measure, keep the figures, print all that there are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the figures")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else PARTS:
        found = [row._asdict() for row in PARTS[name](device(), arguments.small)]
        kept = {"on": surroundings(), "small": arguments.small, "rows": found}
        (arguments.out / f"{name}.json").write_text(json.dumps(kept, indent=1))
    for name in PARTS:
        file = arguments.out / f"{name}.json"
        if not file.exists():
            continue
        kept = json.loads(file.read_text())
        print(f"\n## {name}: {kept['on']}{', small' if kept['small'] else ''}\n")
        print("| | ours | bare | unit | ours / bare | waits a step |\n|---|---|---|---|---|---|")
        for row in (Row(**values) for values in kept["rows"]):
            print(row.line())


if __name__ == "__main__":
    main()
