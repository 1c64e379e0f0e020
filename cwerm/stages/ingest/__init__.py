"""Ingest: any source of labelled images -> ``images``, ``test_images``, ``trusted_images``, ``rejects``.

Two passes over the chunks of the source. The first decodes every image, to learn which are readable
and what labels there are (`ingest_scan`); then ids are given, and labels made wrong on purpose where
the job asks for it (`ingest_assign`); the second pass writes the parts.
"""

from __future__ import annotations

import functools
import io
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from PIL.Image import Image

from cwerm.data.images import FULL_SCALES, decode, read
from cwerm.data.source import Sample, Source
from cwerm.job.tree import Job
from cwerm.runtime.parallel import Pool, worker_pool
from cwerm.stages import common
from cwerm.stages.ingest.assign import ChunkRows, assign_rows
from cwerm.stages.ingest.classes import check_classes, encode
from cwerm.stages.ingest.scan import Scan, Scanner, check_rejects, check_same, parts_of
from cwerm.stages.ingest.sources import (
    WorkItem,
    identities,
    naming,
    open_sources,
    plan_chunks,
    roles,
)
from cwerm.stages.ingest.told import full_scale, understood
from cwerm.store import schema
from cwerm.store.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key

NAME = "ingest"


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on the sources' content, on how they are read and on what is drawn from them."""
    return artifact_key(NAME, _parameters(job), identities(job, store))


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Read every source, give ids, write the images.

    Raises:
        UserError: no or too few readable images, one class only, too many rejects, or too few images of
            a class for what is to be drawn.
    """
    sources = open_sources(job, store)
    chunks = plan_chunks(job, sources)
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    with worker_pool(job, NAME, len(chunks), key="data.rows_per_part") as pool:
        return _ingest(job, sources, chunks, writer, pool)


def _ingest(
    job: Job, sources: dict[str, Source], chunks: list[WorkItem], writer: Writer, pool: Pool
) -> Artifact:
    scan = functools.partial(Scanner, sources)
    scanned = dict(pool.map(scan, chunks, "ingest: check"))
    scans = [scanned[i] for i in range(len(chunks))]
    names, codes = encode(sources, chunks, scans)
    rejects = [entry for scan in scans for entry in scan.rejects]
    check_rejects(job, rejects, sum(chunk.size for _, _, chunk in chunks))
    check_classes(job, names, chunks, codes)

    largest = np.concatenate([scan.largest for scan in scans])
    work = assigned(job, names, chunks, scans, codes)
    rows = [row for _, parts in work for row in parts]
    write = functools.partial(_ChunkWriter, sources, writer)
    todo = [(chunk, parts) for chunk, parts in work if any(part.ids for part in parts)]
    tables: dict[str, dict[int, File]] = {}
    for _, files in pool.map(write, todo, "ingest: write"):
        for table, index, file in files:
            tables.setdefault(table, {})[index] = file
    for role, source in sources.items():
        with naming(role):
            source.check_unchanged()
    _check_rows(tables, rows)
    parts = {table: [files[i] for i in sorted(files)] for table, files in tables.items()}
    labels = _labels_table(rows)
    parts["labels"] = [writer.write_part("labels", 0, labels)]
    reject_columns = [[path for path, _ in rejects], [reason for _, reason in rejects]]
    rejects_table = pa.table(
        [pa.array(c, pa.string()) for c in reject_columns], schema=schema.table_schema("rejects")
    )
    parts["rejects"] = [writer.write_part("rejects", 0, rejects_table)]
    parts.setdefault("test_images", [])
    sizes = np.concatenate([scan.short_sides for scan in scans])
    shapes = set().union(*(scan.shapes for scan in scans))
    return writer.commit(
        parts,
        {
            "class_names": names,
            "num_rejects": len(rejects),
            "median_short_side": int(np.median(sizes)),
            "common_size": list(*shapes) if len(shapes) == 1 else None,
            "understood": understood(
                job, sources, chunks, names, common.column(labels, "label"), largest
            ),
        },
    )


def _parameters(job: Job) -> dict[str, Any]:
    data = job.data
    keys = {"test_fraction", "limit", "split_seed", "image_column", "label_column", "rows_per_part"}
    # what is off stays out, so that clean data have the same key whether or not noise is an option
    if data.imbalance > 1:
        keys.add("imbalance")
    if data.noise != "none":
        keys |= {"noise", "noise_rate"}
    return {**data.model_dump(include=keys), "roles": sorted(roles(job))}


class _ChunkWriter:
    def __init__(self, sources: dict[str, Source], writer: Writer) -> None:
        self.sources, self.writer = sources, writer

    def __call__(self, work: tuple[WorkItem, list[ChunkRows]]) -> list[tuple[str, int, File]]:
        (_, role, chunk), parts = work
        finished = [
            {
                name: self.writer.finished_part(name, part.index, part.contents(name))
                for name in part.ids
            }
            for part in parts
        ]
        samples: Iterator[Sample] = iter(())
        if not all(file for files in finished for file in files.values()):
            samples = self.sources[role].read(chunk)
        with naming(role):
            for part, files in zip(parts, finished, strict=True):
                of_part = islice(samples, len(part.labels))
                if all(files.values()):
                    deque(of_part, maxlen=0)  # one at a time, and forgotten
                else:
                    self._write(list(of_part), part, files)
        return [
            (name, part.index, file)
            for part, files in zip(parts, finished, strict=True)
            for name, file in files.items()
            if file
        ]

    def _write(self, samples: list[Sample], part: ChunkRows, files: dict[str, File | None]) -> None:
        check_same(samples, part.digests)
        for name, ids in part.ids.items():
            clean = part.clean_labels if name == "images" else None
            table = _images_table(samples, ids, part.labels, clean, part.full_scale)
            files[name] = self.writer.write_part(name, part.index, table, part.contents(name))


def assigned(
    job: Job,
    names: list[str],
    chunks: list[WorkItem],
    scans: list[Scan],
    codes: list[np.ndarray],
) -> list[tuple[WorkItem, list[ChunkRows]]]:
    """Each chunk with the parts that it becomes."""
    scale = full_scale(np.concatenate([scan.largest for scan in scans]))
    lengths = [parts_of(c, scan.sizes) for (_, _, c), scan in zip(chunks, scans, strict=True)]
    table_of = [table for (table, _, _), parts in zip(chunks, lengths, strict=True) for _ in parts]
    rows = assign_rows(job.data, names, table_of, _in_parts(codes, lengths))
    for row, digests in zip(rows, _in_parts([s.digests for s in scans], lengths), strict=True):
        row.digests, row.full_scale = digests, scale
    left = iter(rows)
    return [(c, list(islice(left, len(n)))) for c, n in zip(chunks, lengths, strict=True)]


def _in_parts(of_chunks: list[np.ndarray], lengths: list[list[int]]) -> list[np.ndarray]:
    """Values of each chunk's rows, cut into those of its parts."""
    return [
        part
        for values, rows in zip(of_chunks, lengths, strict=True)
        for part in np.split(values, np.cumsum(rows)[:-1])
    ]


def _check_rows(tables: dict[str, dict[int, File]], rows: list[ChunkRows]) -> None:
    """Every id is given once, from 0 without a hole, and every part holds what was given to it."""
    for table in sorted({table for row in rows for table in row.ids}):
        given = {row.index: row.ids[table] for row in rows if table in row.ids}
        kept = {index: ids[ids >= 0] for index, ids in given.items()}
        ids = np.concatenate([kept[index] for index in sorted(kept)])
        assert np.array_equal(ids, np.arange(len(ids))), f"ids of {table} have holes"
        written = {index: file.rows for index, file in tables[table].items()}
        assert written == {index: len(ids) for index, ids in kept.items()}, f"parts of {table}"


def _images_table(
    samples: list[Sample],
    ids: np.ndarray,
    labels: np.ndarray,
    clean_labels: np.ndarray | None,
    full_scale: int,
) -> pa.Table:
    kept = np.flatnonzero(ids >= 0)
    images = _image_column([_scaled(samples[i].image, full_scale) for i in kept])
    columns = [
        pa.array(ids[kept], pa.int64()),
        images,
        pa.array(labels[kept], pa.int32()),
        _clean_column(clean_labels, kept),
        pa.array([samples[i].path for i in kept], pa.string()),
    ]
    return pa.table(columns, schema=schema.table_schema("images", value_type=images.type))


def _scaled(image: bytes | np.ndarray, full_scale: int) -> bytes | np.ndarray:
    """The image as it is, but in 8 bits where its data set uses only a part of 16: later stages read
    an image alone, and can't know.
    """
    if full_scale == FULL_SCALES[-1]:
        return image
    picture = read(image)
    return image if picture.largest is None else _png(picture.to_rgb(full_scale))


def _image_column(images: list[bytes | np.ndarray]) -> pa.Array:
    """Encoded images stay as they are; pixel arrays of one shape become a tensor column."""
    arrays = [image for image in images if isinstance(image, np.ndarray)]
    shapes = {(image.shape, image.dtype) for image in arrays}
    if arrays and len(arrays) == len(images) and len(shapes) == 1 and arrays[0].dtype == np.uint8:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(arrays))
    return pa.array([i if isinstance(i, bytes) else _png(decode(i)) for i in images], pa.binary())


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _labels_table(rows: list[ChunkRows]) -> pa.Table:
    pieces = []
    for part in rows:
        if "images" in part.ids:
            ids = part.ids["images"]
            kept = np.flatnonzero(ids >= 0)
            columns = [
                pa.array(ids[kept], pa.int64()),
                pa.array(part.labels[kept], pa.int32()),
                _clean_column(part.clean_labels, kept),
            ]
            pieces.append(pa.table(columns, schema=schema.table_schema("labels")))
    return pa.concat_tables(pieces)


def _clean_column(clean_labels: np.ndarray | None, rows: np.ndarray) -> pa.Array:
    """The true labels of these rows, null where the labels in use are all that is known."""
    if clean_labels is None:
        return pa.nulls(len(rows), pa.int32())
    return pa.array(clean_labels[rows], pa.int32())
