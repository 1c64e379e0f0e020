"""Judge_test: what was learned of the labels -> ``test_judgements`` and ``trusted_judgements``.

The labels of test and trusted images are judged by what was learned from the training images, to which
they add nothing: none of them sways what is found of itself or of others.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from pydantic import SerializeAsAny

from cwerm.job.tree import Job
from cwerm.methods.reweighting import Reweighting
from cwerm.methods.samples import Batch
from cwerm.runtime import capacity
from cwerm.runtime.parallel import worker_pool
from cwerm.stages import common
from cwerm.stages.broadcast.judging import restore
from cwerm.stages.outside import Outside
from cwerm.stages.stage import Context, Inputs, Settings, Stage, always
from cwerm.store.artifacts import Artifact, ArtifactStore, File
from cwerm.store.writing import Writer

# by table of the judgements, stage and table of the features
FEATURES = {
    "test_judgements": ("embed_test", "test_features"),
    "trusted_judgements": ("extract", "trusted_features"),
}


class JudgeTestSettings(Settings):
    """What judges."""

    method: SerializeAsAny[Reweighting]
    method_version: int
    seed: int

    @classmethod
    def of(cls, job: Job, outside: Outside) -> JudgeTestSettings:
        """Those of this job."""
        del outside
        method = job.reweighting.effective()
        return cls(method=method, method_version=method.version, seed=job.seed)


class _Part(NamedTuple):
    """Some images, as they lie in one part of their features."""

    table: str
    number: int
    first: int
    labels: np.ndarray
    known: np.ndarray


def _run(settings: JudgeTestSettings, inputs: Inputs, context: Context) -> Artifact:
    """Judge the images of each table, as far as there are any."""
    store, in_use = context.store, inputs["label"]
    parts: list[_Part] = []
    for table, (stage, features) in FEATURES.items():
        if not inputs[stage].tables.get(features):
            continue
        if table == "test_judgements":
            found = store.read(in_use, "test_labels")
            labels, known = (common.column(found, name) for name in ("label", "known"))
        else:
            found = store.read(inputs["ingest"], "trusted_labels", ["label"])
            labels = common.column(found, "label")
            known = np.zeros(len(labels), bool)
        cut = [common.by_part(a, inputs[stage], features) for a in (labels, known)]
        first = 0
        for number, (some, sure) in enumerate(zip(*cut, strict=True)):
            parts.append(_Part(table, number, first, some, sure))
            first += len(some)
    tables: dict[str, list[File]] = {}
    if parts:
        pool = worker_pool(context, "judge_test", len(parts))
        device = capacity.size(context).device
        judge = functools.partial(
            _Judge, settings, dict(inputs), context.store, context.writer, device
        )
        files = dict(pool.map(judge, parts, "judge_test"))
        for index, part in enumerate(parts):
            tables.setdefault(part.table, []).append(files[index])
    return context.writer.commit(tables)


class _Judge:
    """Judges one part and writes what it found."""

    def __init__(
        self,
        settings: JudgeTestSettings,
        inputs: Inputs,
        store: ArtifactStore,
        writer: Writer,
        device: str,
    ) -> None:
        self.inputs, self.store, self.writer = inputs, store, writer
        names = inputs["ingest"].info["class_names"]
        learned = inputs["reweight"]
        self.learned = restore(settings.method, settings.seed, self.store, learned, names, device)

    def __call__(self, part: _Part) -> File:
        stage, features = FEATURES[part.table]
        read = self.store.read_part(self.inputs[stage], features, part.number, ["feature"])
        vectors = common.column(read, "feature").astype(np.float32)
        labels, none = part.labels.astype(np.int64), np.full(len(vectors), -1, np.int64)
        trusted = part.table == "trusted_judgements"
        found = self.learned.judge(
            Batch(vectors, labels, known=part.known, rows=none, trusted=trusted)
        )
        assert found, "the job was checked for a method that judges"
        ids = np.arange(part.first, part.first + len(labels))
        columns: list[Any] = [ids, labels, found.quality, found.suggested]
        rows = common.table(part.table, *columns, found.suggestion_probability)
        return self.writer.write_part(part.table, part.number, rows)


judge_test = Stage(
    "judge_test",
    1,
    always("ingest", "label", "extract", "embed_test", "reweight"),
    JudgeTestSettings.of,
    _run,
)
