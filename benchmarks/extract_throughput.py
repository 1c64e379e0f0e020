"""Images a second of the extract stage: `python benchmarks/extract_throughput.py --help`.

Against a plain loop in one process (torch's own number of threads) over the same images with the
same decoding, preprocessing and embedding, in alternating fresh processes. `loop` runs from the
moment the models are loaded to the last features written; `stage` is the stage's call with Ray
already up; `process` is everything from the start of Python. The third contestant is the plain loop
with the stage's setting of the memory allocator, so that the two causes of a difference stay apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _report import print_ratio, print_table, surroundings

from cwerm.job.tree import load_job
from cwerm.pipeline import plan
from cwerm.runtime.session import session
from cwerm.stages import common
from cwerm.stages.backbone_weights import weights_file
from cwerm.stages.extract import embedding
from cwerm.stages.plan import Plan
from cwerm.store.artifacts import Artifact, ArtifactStore

JOB = Path(__file__).parent.parent / "jobs" / "paper" / "sample.yaml"
TOLERANCE = 0.02  # float16 of values up to about 6


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=4_000, help="of the sample's 10,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        _contest(options.contestant, options.folder, options.images)
        return
    print(surroundings())
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _start("ingest", folder, options.images)
        for round_ in range(options.rounds):
            for contestant in CONTESTANTS:
                seconds[contestant].append(_start(contestant, folder, options.images))
            _compare(folder)
            print(f"round {round_ + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
    rates = {
        f"{contestant}, {span}": [options.images / run[span] for run in runs]
        for contestant, runs in seconds.items()
        for span in runs[0]
    }
    print_table(f"extract, {options.images} images", "images/s", rates)
    print()
    for span in ("loop", "process"):
        ours = rates[f"stage, {span}"]
        asked = " (0.9 is asked for)" if span == "loop" else ""
        print_ratio(f"{span}: stage / plain", ours, rates[f"plain, {span}"], asked)
        kept = rates[f"plain, memory kept, {span}"]
        print_ratio(f"{span}: stage / plain, memory kept", ours, kept, "")


def _start(contestant: str, folder: Path, images: int) -> dict[str, float]:
    """Run one contestant in a process of its own; what it measured, and the whole."""
    result = folder / "seconds.json"
    arguments = ["--contestant", contestant, "--folder", folder, "--images", images]
    started = time.perf_counter()
    subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True)
    whole = time.perf_counter() - started
    return {**json.loads(result.read_text()), "process": whole}


def _contest(contestant: str, folder: Path, images: int) -> None:
    overrides = ["storage=" + str(folder / "store"), f"data.limit={images}"]
    steps = plan(load_job(JOB, overrides))
    seconds = CONTESTANTS.get(contestant, _ingest)(steps, folder)
    (folder / "seconds.json").write_text(json.dumps(seconds))


def _ingest(steps: Plan, folder: Path) -> dict[str, float]:
    steps.execute("ingest")
    return {}


# --- the contestants -----------------------------------------------------------------------------


def _plain(steps: Plan, folder: Path) -> dict[str, float]:
    from cwerm.algorithms.networks.features import embed, load_backbone
    from cwerm.algorithms.networks.preprocessing import preprocess
    from cwerm.data.images import decode

    section, store = steps.job.features, steps.store
    weights = weights_file(section.weights, folder)
    backbone = load_backbone(section.backbone, weights, section.image_size)
    images = steps.execute("ingest").artifact
    started = time.perf_counter()
    features = []
    for part in range(len(images.tables["images"])):
        cells = common.images_of(store.read_part(images, "images", part, ["image"]))
        for start in range(0, len(cells), section.batch_size):
            batch = cells[start : start + section.batch_size]
            pixels = np.stack([preprocess(decode(image), backbone.spec) for image in batch])
            features.append(embed(backbone, pixels))
    np.save(folder / "plain.npy", np.concatenate(features).astype(section.dtype))
    return {"loop": time.perf_counter() - started}


def _plain_memory_kept(steps: Plan, folder: Path) -> dict[str, float]:
    embedding.keep_freed_memory()
    return _plain(steps, folder)


class _TimedEmbedder(embedding._Embedder):
    """Notes when each actor is ready."""

    folder: Path

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        with (self.folder / "ready").open("a") as file:
            file.write(f"{time.time()}\n")


def _stage(steps: Plan, folder: Path) -> dict[str, float]:
    _forget(folder / "store" / "artifacts" / "extract")
    (folder / "ready").unlink(missing_ok=True)
    _TimedEmbedder.folder = folder
    embedding._Embedder = _TimedEmbedder  # type: ignore[misc]
    session.ensure_ray(steps.job)
    steps.execute("ingest")
    started = time.time()
    artifact = steps.execute("extract").artifact
    ended = time.time()
    ready = max(float(line) for line in (folder / "ready").read_text().split())
    np.save(folder / "stage.npy", _features(steps.store, artifact))
    return {"loop": ended - ready, "stage": ended - started}


CONTESTANTS: dict[str, Callable[[Plan, Path], dict[str, float]]] = {
    "plain": _plain,
    "plain, memory kept": _plain_memory_kept,
    "stage": _stage,
}


def _forget(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _features(store: ArtifactStore, artifact: Artifact) -> np.ndarray:
    return common.column(store.read(artifact, "features", ["feature"]), "feature")


def _compare(folder: Path) -> None:
    plain, stage = np.load(folder / "plain.npy"), np.load(folder / "stage.npy")
    difference = float(np.abs(plain.astype(np.float32) - stage.astype(np.float32)).max())
    if plain.shape != stage.shape or difference > TOLERANCE:
        sys.exit(f"the two made different features: {difference} apart; nothing to compare")


if __name__ == "__main__":
    main()
