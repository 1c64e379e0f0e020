"""Ingest: any source of labelled images -> ``images``, ``test_images``, ``trusted_images``, ``rejects``.

Two passes over the chunks of the source. The first decodes every image, to learn which are readable
and what labels there are; then ids are given; the second writes the parts.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cwerm import schema
from cwerm.algorithms.coreset import draw_balanced
from cwerm.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key
from cwerm.config import Job
from cwerm.data.catalog import open_source
from cwerm.data.images import decode
from cwerm.data.labels import class_mapping
from cwerm.data.source import Chunk, Source
from cwerm.errors import UserError, blame
from cwerm.stages.parallel import Pool, worker_pool

NAME = "ingest"
WorkItem = tuple[str, str, Chunk]  # table, role, chunk
_ROLES = ("source", "test", "trusted")  # the keys of `data` that name a source


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the sources' content and on how they are read."""
    return artifact_key(NAME, _parameters(job), [_fingerprint(s) for s in _sources(job).values()])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Read every source, give ids, write the images.

    Raises:
        UserError: no or too few readable images, one class only, too many rejects.
    """
    sources = _sources(job)
    chunks = _plan(job, sources)
    if not any(table == "images" for table, _, _ in chunks):
        raise UserError(f"data.source: '{job.data.source}' holds no images; check the path")
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    with worker_pool(job, len(chunks)) as pool:
        return _ingest(job, sources, chunks, writer, pool)


def _ingest(
    job: Job, sources: dict[str, Source], chunks: list[WorkItem], writer: Writer, pool: Pool
) -> Artifact:
    scan = functools.partial(_Scanner, sources)
    scans = dict(pool.map(scan, chunks, "ingest: check"))
    names, codes = _encode(sources, chunks, [scans[i] for i in range(len(chunks))])
    rejects = [entry for i in range(len(chunks)) for entry in scans[i].rejects]
    _check_rejects(job, rejects, sum(chunk.size for _, _, chunk in chunks))
    _check_classes(job, names, chunks, codes)

    rows = _assign_ids(job, chunks, codes)
    write = functools.partial(_ChunkWriter, sources, writer)
    work = [(chunk, part) for chunk, part in zip(chunks, rows, strict=True) if part.ids]
    tables: dict[str, dict[int, File]] = {}
    for _, files in pool.map(write, work, "ingest: write"):
        for table, index, file in files:
            tables.setdefault(table, {})[index] = file
    parts = {table: [files[i] for i in sorted(files)] for table, files in tables.items()}
    parts["labels"] = [writer.write_part("labels", 0, _labels_table(rows))]
    reject_columns = [[path for path, _ in rejects], [reason for _, reason in rejects]]
    rejects_table = pa.table(
        [pa.array(c, pa.string()) for c in reject_columns], schema=schema.table_schema("rejects")
    )
    parts["rejects"] = [writer.write_part("rejects", 0, rejects_table)]
    parts.setdefault("test_images", [])
    sizes = np.concatenate([scans[i].short_sides for i in range(len(chunks))])
    shapes = set().union(*(scans[i].shapes for i in range(len(chunks))))
    return writer.commit(
        parts,
        {
            "class_names": names,
            "num_rejects": len(rejects),
            "median_short_side": int(np.median(sizes)),
            "common_size": list(*shapes) if len(shapes) == 1 else None,
        },
    )


# --- sources -------------------------------------------------------------------------------------


def _sources(job: Job) -> dict[str, Source]:
    """The sources that the job names, by their key in ``data``."""
    data = job.data
    specs = {role: getattr(data, role) for role in _ROLES}
    return {
        role: _open(role, spec, data.root, data.image_column, data.label_column)
        for role, spec in specs.items()
        if spec is not None
    }


@functools.lru_cache(maxsize=16)
def _open(role: str, spec: str, root: str | None, image_column: str, label_column: str) -> Source:
    try:
        return open_source(spec, root=root, image_column=image_column, label_column=label_column)
    except UserError as error:
        raise UserError(str(error).replace("data.source", f"data.{role}")) from None


@functools.lru_cache(maxsize=16)
def _fingerprint(source: Source) -> str:
    return source.fingerprint()


def _parameters(job: Job) -> dict[str, Any]:
    keys = {"test_fraction", "limit", "split_seed", "image_column", "label_column", "rows_per_part"}
    roles = sorted(_sources(job))
    return {**job.data.model_dump(include=keys), "roles": roles}


def _plan(job: Job, sources: dict[str, Source]) -> list[WorkItem]:
    rows = job.data.rows_per_part
    items = [("images", "source", chunk) for chunk in sources["source"].chunks("train", rows)]
    if "test" in sources:
        test = sources["test"]
        chunks = test.chunks("test", rows) or test.chunks("train", rows)
        items += [("test_images", "test", chunk) for chunk in chunks]
    else:
        chunks = sources["source"].chunks("test", rows)
        items += [("test_images", "source", chunk) for chunk in chunks]
    if "trusted" in sources:
        chunks = sources["trusted"].chunks("train", rows)
        items += [("trusted_images", "trusted", chunk) for chunk in chunks]
    return items


# --- first pass: which images are readable, and what labels there are ------------------------------


@dataclass
class _Scan:
    readable: np.ndarray  # bool [rows]
    labels: list[str | int]  # of all rows
    rejects: list[tuple[str, str]]  # path, reason
    short_sides: np.ndarray  # of readable rows, pixels
    shapes: set[tuple[int, int]]  # (height, width) that occur; two are enough to know they differ


class _Scanner:
    def __init__(self, sources: dict[str, Source]) -> None:
        self.sources = sources

    def __call__(self, item: WorkItem) -> _Scan:
        _, role, chunk = item
        readable, labels, rejects, sides = [], [], [], []
        shapes: set[tuple[int, int]] = set()
        for sample in self.sources[role].read(chunk):
            labels.append(sample.label)
            try:
                width, height = decode(sample.image).size
            except ValueError as error:
                rejects.append((sample.path, str(error)))
                readable.append(False)
                continue
            readable.append(True)
            sides.append(min(width, height))
            if len(shapes) < 2:
                shapes.add((height, width))
        short_sides = np.array(sides, dtype=np.int32)
        return _Scan(np.array(readable, dtype=bool), labels, rejects, short_sides, shapes)


def _encode(
    sources: dict[str, Source], items: list[WorkItem], scans: list[_Scan]
) -> tuple[list[str], list[np.ndarray]]:
    """Class names and, for each chunk, the class of each row, -1 where it is not readable."""
    own_names = sources["source"].class_names()
    train = {
        label
        for (table, _, _), scan in zip(items, scans, strict=True)
        if table == "images"
        for label in scan.labels
    }
    with blame("data.label_column"):
        names, known = class_mapping(train, own_names)
    codes = []
    for (_, role, chunk), scan in zip(items, scans, strict=True):
        try:
            chunk_codes = np.array([known[label] for label in scan.labels], dtype=np.int32)
        except KeyError as error:
            raise UserError(
                f"data.{role}: {chunk.split} class {error} is not among the training classes "
                f"({', '.join(names[:5])}, ...); remove it or rename it"
            ) from None
        codes.append(np.where(scan.readable, chunk_codes, -1).astype(np.int32))
    return names, codes


def _check_rejects(job: Job, rejects: list[tuple[str, str]], total: int) -> None:
    limit = job.data.max_rejects
    allowed = limit * total if limit < 1 else limit
    if len(rejects) > allowed:
        path, reason = rejects[0]
        raise UserError(
            f"data.max_rejects: {len(rejects)} of {total} images are unreadable, {limit} allowed "
            f"(first: {path}: {reason}); mend or remove them, or raise the limit"
        )


def _check_classes(
    job: Job, names: list[str], items: list[WorkItem], codes: list[np.ndarray]
) -> None:
    train = np.concatenate([c for (t, _, _), c in zip(items, codes, strict=True) if t == "images"])
    present = np.unique(train[train >= 0])
    if len(present) == 0:
        raise UserError(f"data.source: '{job.data.source}' has no readable image; check the files")
    if len(present) == 1:
        raise UserError(
            f"data.source: all images of '{job.data.source}' are of class '{names[present[0]]}'; "
            "a classifier needs at least two"
        )
    if len(present) < len(names):
        missing = sorted(set(range(len(names))) - set(present.tolist()))
        raise UserError(
            f"data.source: class '{names[missing[0]]}' has no readable training image; "
            "add some or remove the class"
        )


# --- ids, and the second pass ---------------------------------------------------------------------


@dataclass
class _Rows:
    """What becomes of one chunk: for each row the id it gets, -1 where it is not in that table."""

    index: int
    codes: np.ndarray
    ids: dict[str, np.ndarray]


def _assign_ids(job: Job, items: list[WorkItem], codes: list[np.ndarray]) -> list[_Rows]:
    """Ids contiguous from 0 in each table, in the order of the source."""
    train_chunks = [i for i, (table, _, _) in enumerate(items) if table == "images"]
    train = np.concatenate([codes[i] for i in train_chunks])
    table_of = np.where(train >= 0, "images", "").astype(object)  # text of any length
    if not any(table == "test_images" for table, _, _ in items):
        table_of[_drawn_test(job, train)] = "test_images"
    if job.data.limit is not None:
        rows = np.flatnonzero(table_of == "images")
        if job.data.limit < len(rows):
            with blame("data.limit"):
                kept = draw_balanced(train[rows], job.data.limit, job.data.split_seed)
            table_of[np.setdiff1d(rows, rows[kept])] = ""
    ends = np.cumsum([len(codes[i]) for i in train_chunks])
    split = dict(zip(train_chunks, np.split(table_of, ends[:-1]), strict=True))

    next_id: dict[str, int] = {}
    rows_of = []
    for index, (table, _, _) in enumerate(items):
        tables = split.get(index, np.where(codes[index] >= 0, table, ""))
        ids = {}
        for name in sorted(set(tables.tolist()) - {""}):
            mask = tables == name
            start = next_id.get(name, 0)
            ids[name] = np.where(mask, start + np.cumsum(mask) - 1, -1)
            next_id[name] = start + int(mask.sum())
        rows_of.append(_Rows(index, codes[index], ids))
    return rows_of


def _drawn_test(job: Job, labels: np.ndarray) -> np.ndarray:
    """Positions of the test split: the same share of each class, at least one."""
    random = np.random.default_rng([job.data.split_seed, 1])
    drawn = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        count = max(1, round(job.data.test_fraction * len(rows)))
        if count >= len(rows):
            raise UserError(
                f"data.test_fraction: class {label} has {len(rows)} image(s), too few to draw a test "
                "split from; add images or give data.test"
            )
        drawn.append(random.permutation(rows)[:count])
    return np.concatenate(drawn)


class _ChunkWriter:
    def __init__(self, sources: dict[str, Source], writer: Writer) -> None:
        self.sources, self.writer = sources, writer

    def __call__(self, work: tuple[WorkItem, _Rows]) -> list[tuple[str, int, File]]:
        (_, role, chunk), rows = work
        finished = {name: self.writer.finished_part(name, rows.index) for name in rows.ids}
        if not all(finished.values()):
            samples = list(self.sources[role].read(chunk))
            for name, ids in rows.ids.items():
                table = _images_table(samples, rows.codes, ids)
                finished[name] = self.writer.write_part(name, rows.index, table)
        return [(name, rows.index, file) for name, file in finished.items() if file]


def _images_table(samples: list[Any], codes: np.ndarray, ids: np.ndarray) -> pa.Table:
    kept = np.flatnonzero(ids >= 0)
    images = _image_column([samples[i].image for i in kept])
    columns = [
        pa.array(ids[kept], pa.int64()),
        images,
        pa.array(codes[kept], pa.int32()),
        pa.nulls(len(kept), pa.int32()),
        pa.array([samples[i].path for i in kept], pa.string()),
    ]
    return pa.table(columns, schema=schema.table_schema("images", value_type=images.type))


def _image_column(images: list[bytes | np.ndarray]) -> pa.Array:
    """Encoded images stay as they are; pixel arrays of one shape become a tensor column."""
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    shapes = {(image.shape, image.dtype) for image in arrays}
    if arrays and len(arrays) == len(images) and len(shapes) == 1 and arrays[0].dtype == np.uint8:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(arrays))
    return pa.array([i if isinstance(i, bytes) else _as_png(i) for i in images], pa.binary())


def _as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    decode(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _labels_table(rows: list[_Rows]) -> pa.Table:
    ids = [part.ids["images"] for part in rows if "images" in part.ids]
    codes = [part.codes for part in rows if "images" in part.ids]
    all_ids, all_codes = np.concatenate(ids), np.concatenate(codes)
    kept = all_ids >= 0
    return pa.table(
        [pa.array(all_ids[kept], pa.int64()), pa.array(all_codes[kept], pa.int32())],
        schema=schema.table_schema("labels"),
    )
