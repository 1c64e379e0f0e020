"""The sources that a job names, and the chunks of them that ingest reads."""

from __future__ import annotations

import functools

from cwerm.config import Job
from cwerm.data.catalog import open_source
from cwerm.data.source import Chunk, Source
from cwerm.errors import UserError
from cwerm.sections import S3

WorkItem = tuple[str, str, Chunk]  # table, role, chunk
_ROLES = ("source", "test", "trusted")  # the keys of `data` that name a source


def open_sources(job: Job) -> dict[str, Source]:
    """The sources that the job names, by their key in ``data``; each is opened once."""
    data = job.data
    specs = {role: getattr(data, role) for role in _ROLES}
    return {
        role: _open(role, spec, data.root, data.image_column, data.label_column, job.s3)
        for role, spec in specs.items()
        if spec is not None
    }


@functools.lru_cache(maxsize=16)
def _open(
    role: str, spec: str, root: str | None, image_column: str, label_column: str, s3: S3
) -> Source:
    columns = {"image_column": image_column, "label_column": label_column}
    try:
        return open_source(spec, root=root, s3=s3, **columns)
    except UserError as error:
        raise UserError(str(error).replace("data.source", f"data.{role}")) from None


@functools.lru_cache(maxsize=16)
def fingerprint(source: Source) -> str:
    """The source's own, computed once."""
    return source.fingerprint()


def plan_chunks(job: Job, sources: dict[str, Source]) -> list[WorkItem]:
    """All chunks to read, in order, each with the table that its images are for."""
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
