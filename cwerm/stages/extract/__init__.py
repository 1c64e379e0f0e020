"""Extract: images -> ``features``, by Ray Data: decoding on CPU tasks, embedding on a pool of actors.

Those of the training images, which weights are learned from, and of the trusted ones are one artifact. Those
of test and of validation images are others, made for jobs that ask for them, and change no key of the first.

The unit of work is one part of the images. An embedding actor writes the part it has made, so that a later
attempt goes on where this one stopped, and so that the order of rows never depends on Ray. Images that were
embedded before, under whatever label, are not embedded again.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cwerm.algorithms.networks import features as backbones
from cwerm.errors import blame
from cwerm.runtime import batch_memory, capacity, waiting
from cwerm.runtime.attempts import end_lost_workers, ledger
from cwerm.runtime.deaths import is_loss
from cwerm.runtime.parallel import worker_pool
from cwerm.runtime.worker_errors import user_errors
from cwerm.stages.backbone_weights import weights_file
from cwerm.stages.extract.embedding import BATCH_KEY, POOL_SHARE, Copier, Work, pipeline
from cwerm.stages.extract.known import find_known, remember
from cwerm.stages.extract.settings import SOURCES, TABLES, ExtractSettings
from cwerm.stages.stage import Context, Inputs, Stage, always
from cwerm.store.artifacts import Artifact, File
from cwerm.store.claims import work_clock
from cwerm.terminal import console

READERS = 16  # threads that check what an earlier attempt left

Place = tuple[str, int]  # table and part


def _run(settings: ExtractSettings, inputs: Inputs, context: Context) -> Artifact:
    """Embed the images of the stage's tables, as far as there are any."""
    images, writer = inputs["ingest"], context.writer
    stage = writer.stage
    # a part of the features holds those of one part of the images
    contents = {
        name: [part.sha256 for part in images.tables[source]]
        for name, source in ((table, SOURCES[table]) for table in TABLES[stage])
        if source in images.tables
    }
    with ThreadPoolExecutor(READERS) as readers:
        tables = {
            name: list(readers.map(partial(writer.finished_part, name), range(len(of)), of))
            for name, of in contents.items()
        }
    places = [(name, part) for name, files in tables.items() for part in range(len(files))]
    todo = [(name, part) for name, part in places if tables[name][part] is None]
    if len(todo) < len(places):
        console.note(f"{len(places) - len(todo)} part(s) were finished by an earlier attempt")
    if todo:
        work = Work(context.store, writer, images, settings, contents, None)
        for name, part, file in _make(work, todo, context):
            tables[name][part] = file
    complete = {name: [file for file in files if file] for name, files in tables.items()}
    for name, files in complete.items():
        expected = [part.rows for part in images.tables[SOURCES[name]]]
        assert [file.rows for file in files] == expected, f"{name} are not those of the images"
    made = writer.commit(complete)
    remember(context.store, settings, made, images)
    return made


def _make(work: Work, todo: list[Place], context: Context) -> Iterator[tuple[str, int, File]]:
    """The parts as they are made: copied where all their images are known, else embedded."""
    known = find_known(context.store, work.settings, work.images, work.contents)
    counts = {place: known.counts(*place) for place in todo}
    asked, found = (sum(column) for column in zip(*counts.values(), strict=True))
    if found:
        work = dataclasses.replace(work, known=known)
        console.note(f"{found:,} of {asked:,} images were embedded before")
    copied = [place for place, (rows, have) in counts.items() if rows == have]
    if copied:
        pool = worker_pool(context, work.writer.stage, len(copied))
        copy = functools.partial(Copier, work)
        for index, file in pool.map(copy, copied, f"{work.writer.stage}: copy"):
            yield *copied[index], file
    left = [place for place in todo if place not in set(copied)]
    if left:
        yield from _embed(work, left, context)


def _embed(work: Work, todo: list[Place], context: Context) -> Iterator[tuple[str, int, File]]:
    """The parts as the actors finish; where a node is lost, on those that are left."""
    from cwerm.algorithms.memory import estimate_batch_bytes

    settings, images = work.settings, work.images
    batch_size = context.limits[BATCH_KEY]
    size = capacity.size(context)
    workers = min(size.workers, len(todo))
    with tempfile.TemporaryDirectory() as folder, blame("features"):
        weights = weights_file(context.outside.weights_address, Path(folder), context.s3)
        backbone = backbones.load_backbone(settings.backbone, weights, settings.image_size)
    spec = backbone.spec
    need = estimate_batch_bytes(backbone.module, (3, spec.size, spec.size), training=False)
    sharing = size.sharing_memory(workers)
    batch_memory.check_memory(context, BATCH_KEY, need, batch_size, sharing)

    request = size.request(workers, share=POOL_SHARE)
    left = set(todo)
    total = sum(images.tables[SOURCES[name]][part].rows for name, part in todo)
    with console.progress(total, work.writer.stage) as advance, user_errors(BATCH_KEY):
        while left:
            waiting.for_room(context, work.writer.stage, request)
            parts = [place for place in todo if place in left]
            clock = work_clock.current()
            try:
                with ledger() as book:
                    clock.wait()  # until an actor enrols
                    data = pipeline(work, parts, context, spec, request, book)
                    end_lost = partial(end_lost_workers, book)
                    rows = data.iter_rows()
                    for row in waiting.while_room(
                        context, work.writer.stage, request, rows, end_lost
                    ):
                        clock.work()
                        values = {field.name: row[field.name] for field in dataclasses.fields(File)}
                        left.remove((row["table"], row["part"]))
                        advance(row["rows"])
                        yield row["table"], row["part"], File(**values)
            except Exception as error:
                if not is_loss(error):
                    raise
                console.note(f"extract goes on with the {len(left)} parts that are left")
            finally:
                clock.work()


extract = Stage("extract", 3, always("ingest"), ExtractSettings.of, _run)
embed_val = Stage("embed_val", 2, always("ingest"), ExtractSettings.of, _run)
embed_test = Stage("embed_test", 2, always("ingest"), ExtractSettings.of, _run)
