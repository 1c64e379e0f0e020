"""Images to features by Ray Data: decoding on CPU tasks, embedding on a pool of actors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms.networks import features as backbones
from cwerm.algorithms.networks.preprocessing import preprocess
from cwerm.data.images import decode
from cwerm.errors import UserError
from cwerm.job.surroundings import S3
from cwerm.runtime import capacity
from cwerm.runtime.attempts import attempt, enrol
from cwerm.runtime.session import cluster
from cwerm.stages import common
from cwerm.stages.backbone_weights import load_same_backbone
from cwerm.stages.extract.known import Known
from cwerm.stages.extract.settings import SOURCES, ExtractSettings
from cwerm.stages.stage import Context
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, File
from cwerm.store.writing import Writer

BATCH_KEY = "features.batch_size"
DECODE_CPUS = 0.5  # leaves room for two such tasks beside the actors on two CPUs
POOL_SHARE = 0.5  # of the CPUs, held by the embedding actors
NO_PROGRESS_SECONDS = 6 * 3600  # the training of another run may hold the CPUs for long
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


@dataclass(frozen=True)
class Work:
    """What the workers are given: images and backbone, and what is known of the features already."""

    store: ArtifactStore
    writer: Writer
    images: Artifact
    settings: ExtractSettings
    contents: dict[str, list[str]]
    known: Known | None

    def unknown(self, table: str, part: int, rows: int) -> np.ndarray:
        """Which images of a part must be embedded, bool [rows]."""
        if self.known is None:
            return np.ones(rows, dtype=bool)
        return self.known.rows[table][part] < 0

    def write(self, table: str, part: int, ids: np.ndarray, vectors: np.ndarray) -> File:
        """Write the features of one part, float [b, d], those of known images filled in."""
        stored = _stored(ids, vectors, self.settings.dtype)
        if self.known is not None:
            self.known.read(self.store, self.known.rows[table][part], stored)
        values = pa.FixedShapeTensorArray.from_numpy_ndarray(stored)
        fields = schema.table_schema("features", value_type=values.type)
        rows = pa.table([pa.array(ids, pa.int64()), values], schema=fields)
        return self.writer.write_part(table, part, rows, self.contents[table][part])


class Copier:
    """Writes parts all of whose images are known."""

    def __init__(self, work: Work) -> None:
        assert work.known is not None, "there is nothing to copy"
        self.work, self.known = work, work.known
        self.width = common.dimensions(work.store, *work.known.sources.first)

    def __call__(self, place: tuple[str, int]) -> File:
        table, part = place
        rows = self.known.rows[table][part]
        first = sum(file.rows for file in self.work.images.tables[SOURCES[table]][:part])
        empty = np.zeros((len(rows), self.width), self.work.settings.dtype)
        return self.work.write(table, part, np.arange(first, first + len(rows)), empty)


def pipeline(
    work: Work,
    parts: list[tuple[str, int]],
    context: Context,
    spec: Any,
    request: capacity.Request,
    book: Any,
) -> Any:
    """The data set whose rows are the parts that were made, on the nodes that live.

    Ray Data starts workers again that die, and does their parts again.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    options = DataContext.get_current()
    options.enable_progress_bars = False
    options.print_on_execution_start = False
    options.target_max_block_size = None  # a block is a part, whole: in one row
    options.execution_options.verbose_progress = False
    options.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    options.retried_map_errors = True
    options.max_map_retries = 2
    size, nodes = capacity.size(context), capacity.living_nodes()
    todo = [{"table": table, "part": part} for table, part in parts]
    workers = min(size.workers, len(todo), max(1, request.room(nodes)))
    free_cpus = (1 - POOL_SHARE) * sum(node.cpus for node in nodes)
    decoders = max(1, min(len(todo), int(free_cpus / DECODE_CPUS)))
    return (
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(
            _decode_part,
            fn_kwargs={"work": work, "spec": spec, "book": book},
            batch_size=None,
            # No CPU is reserved, only the number is limited: after the loss of a node the actors may
            # hold every CPU that is left, and tasks that asked for one would wait for ever.
            num_cpus=0,
            compute=TaskPoolStrategy(size=decoders),
        )
        .map_batches(
            _Embedder,
            fn_constructor_kwargs={
                "work": work,
                "address": context.outside.weights_address,
                "s3": context.s3,
                "batch_size": context.limits[BATCH_KEY],
                "device": size.device,
                "book": book,
            },
            batch_size=1,  # of rows, which are parts
            compute=ActorPoolStrategy(size=workers),
            num_cpus=request.cpus,
            num_gpus=request.gpus,
            **request.of_type(),
        )
    )


def _decode_part(
    batch: dict[str, np.ndarray], work: Work, spec: Any, book: Any
) -> dict[str, np.ndarray]:
    """One part of the images, decoded and resized to the backbone's input."""
    (table,), (part,) = batch["table"], batch["part"]
    with attempt(book, f"extract: decoding part {part + 1} of {table}", "data.rows_per_part"):
        return _decoded(batch, work, spec)


def _decoded(batch: dict[str, np.ndarray], work: Work, spec: Any) -> dict[str, np.ndarray]:
    """A block of one row, whose cells hold the whole part: Ray Data cuts and joins blocks by rows."""
    (table,), (part,) = batch["table"].tolist(), batch["part"].tolist()
    rows = work.store.read_part(work.images, SOURCES[table], part, ["id", "image"])
    images = common.images_of(rows)
    wanted = np.flatnonzero(work.unknown(table, part, len(rows)))
    pixels = [preprocess(decode(images[row]), spec) for row in wanted]
    return {
        "id": common.column(rows, "id")[None],
        "row": wanted[None],
        "pixels": np.stack(pixels)[None],
        "table": batch["table"],
        "part": batch["part"],
    }


class _Embedder:
    """Holds the backbone; embeds one part a call and writes it."""

    def __init__(
        self, work: Work, address: str, s3: S3, batch_size: int, device: str, book: Any
    ) -> None:
        cluster.check_device(device)
        keep_freed_memory()
        self.work, self.batch_size, self.device, self.book = work, batch_size, device, book
        doing = "extract: loading the backbone"
        with attempt(book, doing, BATCH_KEY, enrol(book)):
            self.backbone = load_same_backbone(work.settings, address, s3)
            self.backbone.module.to(self.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (name,), (index,) = batch["table"].tolist(), batch["part"].tolist()
        ids, rows, pixels = (batch[column][0] for column in ("id", "row", "pixels"))
        with attempt(self.book, f"extract: part {index + 1} of {name}", BATCH_KEY):
            file = self.work.write(name, index, ids, self._embed(len(ids), rows, pixels))
        values = {"table": name, "part": index, **vars(file)}
        return {column: [value] for column, value in values.items()}

    def _embed(self, samples: int, rows: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Features of the images at these rows; those of all others are zero."""
        precision = self.work.settings.precision
        found = backbones.embed(self.backbone, pixels, self.device, precision, self.batch_size)
        vectors = np.zeros((samples, found.shape[1]), found.dtype)
        vectors[rows] = found
        return vectors


def _stored(ids: np.ndarray, vectors: np.ndarray, dtype: str) -> np.ndarray:
    stored = vectors.astype(dtype)
    if not np.isfinite(stored).all():
        row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        remedy = (
            "store float32 with features.dtype=float32"
            if np.isfinite(vectors).all()
            else "check features.weights"
        )
        raise UserError(
            f"features: image {ids[row]} has NaN or infinite features in {dtype}; {remedy}"
        )
    return stored


def keep_freed_memory() -> None:
    """Let glibc keep what one batch frees for the next one, rather than return it to the system.

    Fetching and clearing these pages anew for every layer takes about as long as the arithmetic.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
