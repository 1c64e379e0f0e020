"""Images to features by Ray Data: decoding on CPU tasks, embedding on a pool of actors."""

from __future__ import annotations

import ctypes
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm.algorithms.networks import features as backbones
from cwerm.data.images import decode
from cwerm.errors import UserError
from cwerm.job.sections import S3, Features
from cwerm.job.tree import Job
from cwerm.runtime import capacity
from cwerm.runtime.attempts import attempt, enrol
from cwerm.runtime.session import cluster
from cwerm.stages import common
from cwerm.stages.extract.backbone_weights import identity_of, weights_file
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, Writer

BATCH_KEY = "features.batch_size"
SOURCES = {"features": "images", "trusted_features": "trusted_images"}
DECODE_CPUS = 0.5  # leaves room for two such tasks beside the actors on two CPUs
POOL_SHARE = 0.5  # of the CPUs, held by the embedding actors
NO_PROGRESS_SECONDS = 6 * 3600  # the training of another run may hold the CPUs for long
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def pipeline(
    job: Job,
    store: ArtifactStore,
    images: Artifact,
    writer: Writer,
    todo: list[dict[str, Any]],
    contents: dict[str, list[str]],
    spec: Any,
    request: capacity.Request,
    book: Any,
) -> Any:
    """The data set whose rows are the parts that were made, on the nodes that live.

    Ray Data starts workers again that die, and does their parts again.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # a block is a part, whole: in one row
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    context.retried_map_errors = True
    context.max_map_retries = 2
    size, nodes = capacity.size(job), capacity.living_nodes()
    workers = min(size.workers, len(todo), max(1, request.room(nodes)))
    free_cpus = (1 - POOL_SHARE) * sum(node.cpus for node in nodes)
    decoders = max(1, min(len(todo), int(free_cpus / DECODE_CPUS)))
    return (
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(
            _decode_part,
            fn_kwargs={"store": store, "images": images, "spec": spec, "book": book},
            batch_size=None,
            # No CPU is reserved, only the number is limited: after the loss of a node the actors may
            # hold every CPU that is left, and tasks that asked for one would wait for ever.
            num_cpus=0,
            compute=TaskPoolStrategy(size=decoders),
        )
        .map_batches(
            _Embedder,
            fn_constructor_kwargs={
                "features": job.features,
                "writer": writer,
                "s3": job.s3,
                "contents": contents,
                "device": size.device,
                "book": book,
            },
            batch_size=1,  # of rows, which are parts
            compute=ActorPoolStrategy(size=workers),
            num_cpus=request.cpus,
            num_gpus=request.gpus,
        )
    )


def _decode_part(
    batch: dict[str, np.ndarray], store: ArtifactStore, images: Artifact, spec: Any, book: Any
) -> dict[str, np.ndarray]:
    """One part of the images, decoded and resized to the backbone's input."""
    (table,), (part,) = batch["table"], batch["part"]
    with attempt(book, f"extract: decoding part {part + 1} of {table}", "data.rows_per_part"):
        return _decoded(batch, store, images, spec)


def _decoded(
    batch: dict[str, np.ndarray], store: ArtifactStore, images: Artifact, spec: Any
) -> dict[str, np.ndarray]:
    """A block of one row, whose cells hold the whole part: Ray Data cuts and joins blocks by rows."""
    (table,), (part,) = batch["table"], batch["part"]
    rows = store.read_part(images, SOURCES[table], int(part))
    pixels = [backbones.preprocess(decode(image), spec) for image in common.images_of(rows)]
    return {
        "id": common.column(rows, "id")[None],
        "label": common.column(rows, "label")[None],
        "pixels": np.stack(pixels)[None],
        "table": batch["table"],
        "part": batch["part"],
    }


class _Embedder:
    """Holds the backbone; embeds one part a call and writes it."""

    def __init__(
        self,
        features: Features,
        writer: Writer,
        s3: S3,
        contents: dict[str, list[str]],
        device: str,
        book: Any,
    ) -> None:
        cluster.check_device(device)
        keep_freed_memory()
        self.features, self.writer, self.contents = features, writer, contents
        self.device, self.book = device, book
        work = "extract: loading the backbone"
        with attempt(book, work, BATCH_KEY, enrol(book)), tempfile.TemporaryDirectory() as folder:
            weights = weights_file(features, Path(folder), s3)
            if identity_of(weights) != writer.parameters["weights"]:
                raise UserError(
                    f"features.weights: '{features.weights}' is another file on host "
                    f"{socket.gethostname()} than where the run was started; make them the same"
                )
            self.backbone = backbones.load_backbone(features.backbone, weights, features.image_size)
            self.backbone.module.to(self.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (name,), (index,) = batch["table"].tolist(), batch["part"].tolist()
        batch = {column: batch[column][0] for column in ("id", "label", "pixels")}
        with attempt(self.book, f"extract: part {index + 1} of {name}", BATCH_KEY):
            return self._embed(name, index, batch)

    def _embed(self, name: str, index: int, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        size = self.features.batch_size
        vectors = np.concatenate(
            [
                backbones.embed(self.backbone, batch["pixels"][start : start + size], self.device)
                for start in range(0, len(batch["id"]), size)
            ]
        )
        table = _features_table(batch, vectors, self.features)
        file = self.writer.write_part(name, index, table, self.contents[name][index])
        values = {"table": name, "part": index, **vars(file)}
        return {column: [value] for column, value in values.items()}


def _features_table(
    batch: dict[str, np.ndarray], vectors: np.ndarray, features: Features
) -> pa.Table:
    stored = vectors.astype(features.dtype)
    if not np.isfinite(stored).all():
        row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        remedy = (
            "store float32 with features.dtype=float32"
            if np.isfinite(vectors).all()
            else ("check features.weights")
        )
        raise UserError(
            f"features: image {batch['id'][row]} has NaN or infinite features in "
            f"{features.dtype}; {remedy}"
        )
    values = pa.FixedShapeTensorArray.from_numpy_ndarray(stored)
    return pa.table(
        [pa.array(batch["id"], pa.int64()), pa.array(batch["label"], pa.int32()), values],
        schema=schema.table_schema("features", value_type=values.type),
    )


def keep_freed_memory() -> None:
    """Let glibc keep what one batch frees for the next one, rather than return it to the system.

    Fetching and clearing these pages anew for every layer takes about as long as the arithmetic.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
