"""What a run costs at 1 million, 100 million and a billion images: `python benchmarks/scale_on_paper.py`.

Nothing runs here: it multiplies the constants below, of which each says whether it was measured.
docs/scale.md holds what this prints, and a test compares the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# What a constant is, and where it comes from, is printed with the tables.
# --- measured here, on one core of an AMD EPYC ------------------------------------------------------------
DECODED = 742
RESIZED = 428
LABELLED = 2_500_000
ASSIGNED = 650_000
SELECT_SECONDS = 1.4e-7
SEARCHED = 10e9
REWEIGHT_SECONDS = 53
LABEL_BYTES = 4
WEIGHT_BYTES = 30
DRIVER_BYTES = {  # held for each image at once
    "ingest of packed files: marks on rows, chunks, files of three tables": 3,
    "select by class, broadcast": 0,
    "files of the parts, in every stage that has them": 1,
}
# --- counted from the columns that the code holds, not measured -------------------------------------------
COUNTED_BYTES = {
    "select with `scope: global`": 40,
    "train: ids, weights and their table": 48,
    "scores of the weights in summary.json": 60,
    "train on soft targets: beliefs, read and sorted": 430,
    "suspects, report, `load_weights`: the table of weights, sorted, with paths": 250,
}
# --- assumed ----------------------------------------------------------------------------------------------
EMBEDDED = 3_000
TRAINED = 800
IMAGE_BYTES = 110_000
LATENCY = 0.02
BANDWIDTH = 0.6e9
MACHINE_PRICE = 0.5
HEAD_PRICE = 0.4
GET_PRICE, PUT_PRICE = 0.4e-6, 5e-6
# --- the job ----------------------------------------------------------------------------------------------
CPUS_A_GPU = 8
DIMENSIONS, FEATURE_BYTES = 1280, 2
REFERENCE = 20_000
EPOCHS = 10
ROWS_A_PART = 1024
READERS = 8  # parts that the driver reads at a time
LABEL_ROWS_A_PART = 1 << 20
HELD_ROWS, BLOCK_ROWS, PIECE_ROWS = 2**20, 2**16, 2**14  # of ingest
BUCKET_BYTES, PIECE_BYTES = 2**27, 2**19
HEAD_MEMORY = 64e9

ORIGINS = [
    ("JPEGs of 500 x 375 decoded in a processor second", DECODED, "measured, benchmarks.md"),
    ("the same decoded and resized to 224 x 224", RESIZED, "measured, benchmarks.md"),
    ("images that the driver of ingest gives ids in a second", ASSIGNED, "measured, `scale.py`"),
    ("rows of labels that the driver copies in a second", LABELLED, "measured, `scale.py`"),
    (
        "processor seconds of select for one value of a feature",
        SELECT_SECONDS,
        "measured, `scale.py`",
    ),
    (
        "operations a processor second of the exact search",
        SEARCHED,
        "measured, FAISS on a busy core",
    ),
    ("seconds of reweight", REWEIGHT_SECONDS, "7.9 measured for 3,000 samples, in proportion"),
    ("bytes of a row of labels, stored", LABEL_BYTES, "measured, `scale.py`"),
    ("bytes of a row of weights, stored", WEIGHT_BYTES, "measured, `scale.py`"),
    ("images a second of efficientnet_lite0 on a GPU", EMBEDDED, "assumed for an L4 or A10G"),
    ("images a second of training ResNet-50 on a GPU", TRAINED, "assumed for an L4 or A10G"),
    ("bytes of an image", IMAGE_BYTES, "ImageNet's mean: 138 GB, 1.28 million JPEGs"),
    ("seconds of a request", LATENCY, "assumed"),
    ("bytes a second between a machine and the bucket", BANDWIDTH, "assumed"),
    ("USD an hour of a spot machine, 1 GPU and 8 CPUs", MACHINE_PRICE, "cluster/README.md"),
    ("USD an hour of the head", HEAD_PRICE, "cluster/README.md"),
    ("USD of a GET", GET_PRICE, "S3's list price, assumed"),
    ("USD of a PUT", PUT_PRICE, "S3's list price, assumed"),
]

IMAGES = {"1M": 10**6, "100M": 10**8, "1B": 10**9}
GPUS = (8, 64)


@dataclass(frozen=True)
class Stage:
    """What a stage does, all workers together."""

    name: str
    read: float = 0
    written: float = 0
    gets: float = 0
    puts: float = 0
    cpu: float = 0
    """Processor seconds of the workers."""
    gpu: float = 0
    driver: float = 0
    """Seconds in which only the driver works."""

    def seconds(self, gpus: int) -> float:
        """As long as what takes longest, beside what only the driver does."""
        requests = (self.gets + self.puts) * LATENCY / (gpus * CPUS_A_GPU)
        moved = (self.read + self.written) / (gpus * BANDWIDTH)
        return self.driver + max(self.cpu / (gpus * CPUS_A_GPU), self.gpu / gpus, moved, requests)

    def dollars(self, gpus: int) -> float:
        """Of the machines while it runs, and of its requests."""
        hourly = gpus * MACHINE_PRICE + HEAD_PRICE
        requests = self.gets * GET_PRICE + self.puts * PUT_PRICE
        return self.seconds(gpus) / 3600 * hourly + requests


def stages(images: int) -> list[Stage]:
    """What each stage reads, writes, asks for and computes."""
    parts = math.ceil(images / ROWS_A_PART)
    labels = math.ceil(images / LABEL_ROWS_A_PART)
    pictures, features = images * IMAGE_BYTES, images * DIMENSIONS * FEATURE_BYTES
    bucket = max(BUCKET_BYTES, math.isqrt(features * PIECE_BYTES))
    pieces = (
        0 if features <= bucket else math.ceil(2 * features / bucket) * math.ceil(features / bucket)
    )
    shuffled = features if pieces else 0
    weights = images * WEIGHT_BYTES
    # of ingest, blocks of rows that are read three times, and pieces of the draw by lots
    blocks = math.ceil(images / BLOCK_ROWS) if images > HELD_ROWS else 0
    ranges = math.ceil(images / max(HELD_ROWS, math.isqrt(images * PIECE_ROWS)))
    lots = ranges**2 if blocks else 0
    return [
        # twice over the source, which is packed in files of a part's size; images, labels and digests
        Stage(
            "ingest", 2 * pictures, pictures, 2 * parts + 3 * blocks + lots,
            2 * parts + 3 * labels + 2 * (blocks + lots), images / DECODED, driver=images / ASSIGNED,
        ),
        Stage(
            "label", images * 2, images * LABEL_BYTES, labels, 2 * labels,
            driver=images / LABELLED + labels * LATENCY / READERS,
        ),
        Stage(
            "extract", pictures, features, 2 * parts, 2 * parts, images / RESIZED, images / EMBEDDED
        ),
        Stage(
            "select", features + shuffled, shuffled, parts + pieces, 2 * pieces,
            images * DIMENSIONS * SELECT_SECONDS, driver=3 * images / LABELLED,
        ),
        Stage(
            "reweight", REFERENCE * DIMENSIONS * FEATURE_BYTES, 0, min(parts, REFERENCE), 0,
            driver=REWEIGHT_SECONDS + min(parts, REFERENCE) * LATENCY / READERS,
        ),
        Stage(
            "broadcast", features + weights, 2 * weights, 2 * parts + min(parts, REFERENCE), 3 * parts,
            images * 2 * REFERENCE * DIMENSIONS / SEARCHED,
        ),
        Stage(
            f"train, {EPOCHS} epochs", EPOCHS * pictures, 0, EPOCHS * parts, 0,
            EPOCHS * images / RESIZED, EPOCHS * images / TRAINED,
        ),
    ]  # fmt: skip


def total(of: list[Stage]) -> Stage:
    """The sums, for bytes and requests."""
    sums = [sum(getattr(s, name) for s in of) for name in ("read", "written", "gets", "puts")]
    return Stage("total", *sums)


def tables() -> str:
    """What docs/scale.md shows."""
    lines = []
    for name, images in IMAGES.items():
        lines += [f"### {name} images", ""]
        heads = [f"{what}, {gpus} GPUs" for what in ("time", "USD") for gpus in GPUS]
        lines += [f"| stage | read | written | requests | {' | '.join(heads)} |"]
        lines += [f"|{'---|' * (4 + len(heads))}"]
        every = stages(images)
        for stage in [*every, total(every)]:
            summed = every if stage.name == "total" else [stage]
            times = [_time(sum(s.seconds(gpus) for s in summed)) for gpus in GPUS]
            prices = [f"{sum(s.dollars(gpus) for s in summed):,.2f}" for gpus in GPUS]
            sizes = [_bytes(stage.read), _bytes(stage.written), f"{stage.gets + stage.puts:,.0f}"]
            lines += [f"| {' | '.join([stage.name, *sizes, *times, *prices])} |"]
        lines += [""]
    lines += ["### What the driver holds", ""]
    lines += ["| | bytes an image | 64 GB are full at | |", "|---|---|---|---|"]
    for held, how in ((DRIVER_BYTES, "measured"), (COUNTED_BYTES, "counted")):
        for name, each in held.items():
            full = f"{HEAD_MEMORY / each / 1e6:,.0f}M images" if each else "-"
            lines += [f"| {name} | {each} | {full} | {how} |"]
    lines += ["", "### The constants", "", "| | value | from |", "|---|---|---|"]
    lines += [f"| {what} | {value:,.9g} | {origin} |" for what, value, origin in ORIGINS]
    return "\n".join(lines)


def _bytes(number: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return "-" if not number else "< 1 MB"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


if __name__ == "__main__":
    print(tables())
