"""Reading JPEGs in a shuffled order, part by part: cwerm's reader against those of other libraries.

    pip install mosaicml-streaming webdataset
    python benchmarks/streaming_reader.py [--images 10000] [--rounds 5]

Images of 64 x 64 pixels on a local disk, to batches of 256 uint8 arrays; everything in one process on one
decoding thread, but for Ray Data, whose processes count too; by processor seconds, all readers in each round.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from _report import print_ratio, print_table, surroundings
from PIL import Image

from cwerm.algorithms.training.streaming.batches import Pixels
from cwerm.algorithms.training.streaming.order import stream_batches
from cwerm.stages.train.parts import StoredImages
from cwerm.store.artifacts import Artifact, ArtifactStore
from cwerm.store.schema import table_schema
from cwerm.store.storage import open_storage
from cwerm.store.writing import Writer

SIDE, BATCH, WINDOW, ROWS = 64, 256, 32, 256


def jpeg(seed: int) -> bytes:
    """Something smooth, with noise."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def to_store(folder: Path, images: list[bytes]) -> Callable[[int], Iterable[np.ndarray]]:
    """cwerm's own parts, and its reader of them."""
    store = ArtifactStore(open_storage(str(folder)))
    writer, parts = Writer(store, "ingest", "key", {}), []
    for part, start in enumerate(range(0, len(images), ROWS)):
        cells = images[start : start + ROWS]
        ids = pa.array(range(start, start + len(cells)), pa.int64())
        columns = [ids, pa.array(cells, pa.binary()), pa.array([str(i) for i in range(len(cells))])]
        schema = table_schema("images", value_type=pa.binary())
        parts.append(writer.write_part("images", part, pa.table(columns, schema=schema)))
    made: Artifact = writer.commit({"images": parts}, {})
    stored = StoredImages(store, made, "images", np.arange(len(images)), SIDE)

    def read(epoch: int) -> Iterator[np.ndarray]:
        order = stream_batches(stored.sizes, len(images), BATCH, WINDOW, 0, epoch)
        with Pixels(stored, order, 1) as batches:
            yield from batches

    return read


def to_mosaic(folder: Path, images: list[bytes]) -> Callable[[int], Iterable[np.ndarray]]:
    """MosaicML's shards, with the shuffle that it has by default."""
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"image": "jpeg"}, size_limit=2**20) as writer:
        for data in images:
            writer.write({"image": Image.open(io.BytesIO(data))})
    made = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)

    def read(epoch: int) -> Iterator[np.ndarray]:
        del epoch
        yield from batched(np.asarray(row["image"]) for row in made)

    return read


def to_tars(folder: Path, images: list[bytes]) -> Callable[[int], Iterable[np.ndarray]]:
    """WebDataset's tar files, mixed in a buffer of as many images as the others mix."""
    import webdataset

    for shard, start in enumerate(range(0, len(images), ROWS)):
        with tarfile.open(folder / f"{shard:04d}.tar", "w") as file:
            for row, data in enumerate(images[start : start + ROWS]):
                member = tarfile.TarInfo(f"{start + row}.jpg")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    paths = [str(path) for path in sorted(folder.glob("*.tar"))]

    def read(epoch: int) -> Iterator[np.ndarray]:
        made = webdataset.WebDataset(paths, shardshuffle=len(paths), seed=epoch)
        rows = made.shuffle(WINDOW * ROWS).decode("rgb8").to_tuple("jpg")
        yield from batched(row for (row,) in rows)

    return read


def to_ray(folder: Path, images: list[bytes]) -> Callable[[int], Iterable[np.ndarray]]:
    """Ray Data on one CPU: blocks in another order each epoch, mixed in a buffer of as many images."""
    import pyarrow.parquet as pq
    import ray

    for part, start in enumerate(range(0, len(images), ROWS)):
        table = pa.table({"image": pa.array(images[start : start + ROWS], pa.binary())})
        pq.write_table(table, folder / f"{part:04d}.parquet")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        decoded = [np.asarray(Image.open(io.BytesIO(data))) for data in batch["image"]]
        return {"image": np.stack(decoded).transpose(0, 3, 1, 2)}

    def read(epoch: int) -> Iterator[np.ndarray]:
        made = ray.data.read_parquet(str(folder), shuffle=ray.data.FileShuffleConfig(seed=epoch))
        asked: dict[str, Any] = {
            "local_shuffle_buffer_size": WINDOW * ROWS,
            "local_shuffle_seed": epoch,
        }
        rows = made.map_batches(decode, batch_size=ROWS)
        for batch in rows.iter_torch_batches(batch_size=BATCH, **asked):
            yield batch["image"].numpy()

    return read


def processor_seconds() -> float:
    """Of this process and of all that it started and that live."""
    used = time.process_time()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            used += times.user + times.system
    return used


def batched(rows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches uint8 [256, 3, 64, 64] of images [64, 64, 3]."""
    held: list[np.ndarray] = []
    for row in rows:
        held.append(row.transpose(2, 0, 1))
        if len(held) == BATCH:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def main() -> None:
    """Print images a processor second, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(surroundings())
    images = [jpeg(seed) for seed in range(arguments.images)]
    print(f"{len(images)} JPEGs of {sum(map(len, images)) / len(images):.0f} bytes")
    with tempfile.TemporaryDirectory() as folder:
        readers = {}
        for name, make in (
            ("cwerm", to_store),
            ("mosaicml-streaming", to_mosaic),
            ("webdataset", to_tars),
            ("Ray Data", to_ray),
        ):
            own = Path(folder, name)
            own.mkdir()
            readers[name] = make(own, images)
        rates: dict[str, list[float]] = {name: [] for name in [*readers, "decoding alone"]}
        for epoch in range(arguments.rounds):
            for name, read in readers.items():
                started = processor_seconds()
                seen = sum(len(batch) for batch in read(epoch))
                rates[name].append(seen / (processor_seconds() - started))
                assert seen == len(images), (name, seen)
            started = time.process_time()
            for data in images:
                np.asarray(Image.open(io.BytesIO(data)))
            rates["decoding alone"].append(len(images) / (time.process_time() - started))
    print_table("reading in a shuffled order", "images/CPU-s", rates)
    ours = rates["cwerm"]
    print_ratio("cwerm / mosaicml", ours, rates["mosaicml-streaming"], " (at least 1.7 asked for)")
    print_ratio("cwerm / webdataset", ours, rates["webdataset"], "")
    print_ratio("cwerm / Ray Data", ours, rates["Ray Data"], "")


if __name__ == "__main__":
    main()
