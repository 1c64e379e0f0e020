"""The sources that a job names, and the chunks of them that ingest reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from cwerm.data.catalog import open_source
from cwerm.data.source import Chunk, Source
from cwerm.errors import UserError
from cwerm.job.sections import S3
from cwerm.job.tree import Job
from cwerm.store.artifacts import ArtifactStore

WorkItem = tuple[str, str, Chunk]  # table, role, chunk
_ROLES = ("source", "test", "trusted")  # the keys of `data` that name a source
_How = tuple[str, str | None, str, str, S3]  # what a source is opened with
# Of a run, and gone with it: the next one lists its files anew.
_opened: WeakKeyDictionary[ArtifactStore, dict[_How, Source]] = WeakKeyDictionary()


def roles(job: Job) -> dict[str, str]:
    """The keys of ``data`` that name a source in this job, and what they name."""
    specs = {role: getattr(job.data, role) for role in _ROLES}
    return {role: spec for role, spec in specs.items() if spec is not None}


def open_sources(job: Job, store: ArtifactStore) -> dict[str, Source]:
    """The sources that the job names, by their key in ``data``; each is opened once a run.

    Raises:
        UserError: as `open_source`, and naming the key.
    """
    return {role: _open(role, spec, job, store) for role, spec in roles(job).items()}


def identities(job: Job, store: ArtifactStore) -> list[str]:
    """What tells the content of each source from any other, in the order of `roles`."""
    found = []
    for role, spec in roles(job).items():
        *how, _ = _how(spec, job)  # where a bucket is reached says nothing about what is in it

        def find(role: str = role, spec: str = spec) -> str:
            with naming(role):
                return _open(role, spec, job, store).fingerprint()

        found.append(store.identity(f"source {how}", find))
    return found


def _how(spec: str, job: Job) -> _How:
    data = job.data
    return spec, data.root, data.image_column, data.label_column, job.s3


def _open(role: str, spec: str, job: Job, store: ArtifactStore) -> Source:
    opened, how = _opened.setdefault(store, {}), _how(spec, job)
    if how not in opened:
        _, root, image_column, label_column, s3 = how
        columns = {"image_column": image_column, "label_column": label_column}
        with naming(role):
            opened[how] = open_source(spec, root=root, s3=s3, **columns)
    return opened[how]


@contextmanager
def naming(role: str) -> Iterator[None]:
    """Name the key that the source comes from, in what goes wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("data.source", f"data.{role}")) from None


def plan_chunks(job: Job, sources: dict[str, Source]) -> list[WorkItem]:
    """All chunks to read, in order, each with the table that its images are for.

    Raises:
        UserError: a source has no split that could be what it is named for.
    """
    rows = job.data.rows_per_part
    source = sources["source"]
    items = [("images", "source", chunk) for chunk in source.chunks("train", rows)]
    if not items:
        found = [source.origin(split) for split in ("val", "test") if source.chunks(split, rows)]
        raise UserError(
            f"data.source: '{job.data.source}' has no training images"
            + (f", only {' and '.join(found)}; rename that" if found else "; check the path")
        )
    if "test" in sources:
        items += _first(job, sources, "test", ("test", "train"))
    else:
        items += [("test_images", "source", chunk) for chunk in source.chunks("test", rows)]
    if "trusted" in sources:
        items += _first(job, sources, "trusted", ("train", "test"))
    return items


def _first(
    job: Job, sources: dict[str, Source], role: str, splits: tuple[str, ...]
) -> list[WorkItem]:
    """The first of the splits that the source of the role has."""
    for split in splits:
        if chunks := sources[role].chunks(split, job.data.rows_per_part):
            return [(f"{role}_images", role, chunk) for chunk in chunks]
    raise UserError(f"data.{role}: '{getattr(job.data, role)}' holds no images; check the path")
