"""Extract: images -> ``features``, by Ray Data: decoding on CPU tasks, embedding on a pool of actors.

The unit of work is one part of the images. An embedding actor writes the part it has made, so that a
later attempt goes on where this one stopped, and so that the order of rows never depends on Ray.
"""

from __future__ import annotations

import dataclasses
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cwerm.algorithms.networks import features as backbones
from cwerm.errors import blame
from cwerm.job.tree import Job
from cwerm.runtime import batch_memory, capacity, waiting
from cwerm.runtime.attempts import end_lost_workers, ledger
from cwerm.runtime.parallel import is_loss
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages import common, ingest
from cwerm.stages.extract.backbone_weights import weights_file, weights_identity
from cwerm.stages.extract.embedding import BATCH_KEY, POOL_SHARE, SOURCES, pipeline
from cwerm.store.artifacts import Artifact, ArtifactStore, File, Writer, artifact_key
from cwerm.terminal import console

NAME = "extract"
READERS = 16  # threads that check what an earlier attempt left


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


def _parameters(job: Job, store: ArtifactStore) -> dict[str, Any]:
    parameters = job.features.model_dump(include={"backbone", "image_size", "dtype"})
    return {**parameters, "weights": weights_identity(job, store)}


def _embed_parts(
    job: Job,
    store: ArtifactStore,
    images: Artifact,
    writer: Writer,
    todo: list[dict[str, Any]],
    contents: dict[str, list[str]],
) -> Any:
    """Yield (table, part, file) as the actors finish; where a node is lost, on those that are left."""
    if not todo:
        return
    from cwerm.algorithms.memory import estimate_batch_bytes

    size = capacity.size(job)
    workers = min(size.workers, len(todo))
    with tempfile.TemporaryDirectory() as folder, blame("features"):
        weights = weights_file(job.features, Path(folder), job.s3)
        backbone = backbones.load_backbone(job.features.backbone, weights, job.features.image_size)
    spec = backbone.spec
    need = estimate_batch_bytes(backbone.module, (3, spec.size, spec.size), training=False)
    sharing = size.sharing_memory(workers)
    batch_memory.check_memory(job, BATCH_KEY, need, job.features.batch_size, sharing)

    request = size.request(workers, share=POOL_SHARE)
    total = sum(images.tables[SOURCES[item["table"]]][item["part"]].rows for item in todo)
    left = {(item["table"], item["part"]): item for item in todo}
    with console.progress(total, NAME) as advance, user_errors(BATCH_KEY):
        while left:
            waiting.for_room(job, NAME, request)
            parts = [*left.values()]
            try:
                with ledger() as book:
                    data = pipeline(
                        job, store, images, writer, parts, contents, spec, request, book
                    )
                    end_lost = partial(end_lost_workers, book)
                    for row in waiting.while_room(job, NAME, request, data.iter_rows(), end_lost):
                        values = {field.name: row[field.name] for field in dataclasses.fields(File)}
                        del left[row["table"], row["part"]]
                        advance(row["rows"])
                        yield row["table"], row["part"], File(**values)
            except Exception as error:
                if not is_loss(error):
                    raise
                console.note(f"{NAME} goes on with the {len(left)} parts that are left")
