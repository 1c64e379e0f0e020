"""Select: -> ``coreset`` and ``meta``. Labels and features are streamed, a class's together (`by_class`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from cwerm.algorithms import class_counts, selection
from cwerm.algorithms import coreset as coresets
from cwerm.errors import blame
from cwerm.job.tree import Job
from cwerm.stages import common
from cwerm.stages.labels_in_use import LabelReader, ids_at
from cwerm.stages.select.by_class import look_by_class
from cwerm.stages.select.choosing import Choice
from cwerm.stages.select.settings import HoldOut, SelectSettings, class_sizes
from cwerm.stages.stage import Context, Inputs, Stage
from cwerm.store.artifacts import Artifact, ArtifactStore

__all__ = ["HoldOut", "class_sizes", "select"]


def _needs(job: Job) -> tuple[str, ...]:
    with blame("coreset.method"):
        by_labels = selection.load_method(job.coreset_method).NEEDS == "labels"
    return ("ingest", "label") if by_labels else ("ingest", "label", "extract")


def _run(settings: SelectSettings, inputs: Inputs, context: Context) -> Artifact:
    """Pick the meta set, and the coreset among the other samples (paper, section 4.1)."""
    store, writer, images = context.store, context.writer, inputs["ingest"]
    names, in_use = images.info["class_names"], inputs["label"]
    meta = settings.held_out.ids(store, in_use, names)
    left_out = settings.left_out(store, in_use, names)
    sizes = class_sizes(store, in_use, left_out, len(names))
    total = in_use.rows("labels")
    with blame("coreset", names):
        size = settings.coreset_size(total, total - len(left_out))
        needs = selection.load_method(settings.method).NEEDS
        if settings.scope != "global" and needs in ("labels", "distances", "features"):
            choice = Choice(
                settings.method, class_counts.class_shares(sizes, size), settings.seed, names
            )
        else:
            choice = None
    distances = None
    if choice and needs == "labels":
        ids = _by_labels(choice, LabelReader(store, in_use), left_out, sizes)
    elif "extract" in inputs:
        features = inputs["extract"]
        ids, distances = look_by_class(context, features, in_use, left_out, sizes, choice)
    if choice is None:
        every = np.setdiff1d(np.arange(total), left_out)
        labels = common.labels_of(store, in_use)[every]
        evidence = _evidence(settings, store, inputs.get("extract"), labels, distances, every)
        with blame("coreset", names):
            scope, seed = settings.scope or "class", settings.seed
            chosen = coresets.select(labels, size, settings.method, scope, seed, **evidence)
        ids, distances = every[chosen], None if distances is None else distances[chosen]
    labels = _labels_at(LabelReader(store, in_use), ids, right=False)
    coreset = common.table("coreset", ids, labels, distances)
    tables = {"coreset": [writer.write_part("coreset", 0, coreset)]}
    if settings.trusted:
        given = store.read(images, "trusted_labels", ["id", "label"])
        tables["meta"] = [writer.write_part("meta", 0, given)]
    elif len(meta):
        right = _labels_at(LabelReader(store, in_use), meta, right=True)
        tables["meta"] = [writer.write_part("meta", 0, common.table("meta", meta, right))]
    return writer.commit(
        tables, {"meta_images": "trusted_images" if settings.trusted else "images"}
    )


def _by_labels(
    choice: Choice, reader: LabelReader, left_out: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Ids that a method chooses which looks at nothing but the number of samples, ascending."""
    codes = np.cumsum(sizes > 0) - 1  # of the classes that occur
    places = [
        choice.positions(label, np.broadcast_to(codes[label], size))
        for label, size in enumerate(sizes.tolist())
    ]
    rows = ((rows.start, rows.labels, rows.usable(left_out)) for rows in reader.every())
    return ids_at(rows, sizes, places)


def _labels_at(reader: LabelReader, ids: np.ndarray, *, right: bool) -> np.ndarray:
    """Labels of these ids, which ascend, int32."""
    found = np.empty(len(ids), dtype=np.int32)
    for rows in reader.every():
        first, last = np.searchsorted(ids, [rows.start, rows.start + len(rows.labels)])
        labels = rows.right if right else rows.labels
        found[first:last] = labels[ids[first:last] - rows.start]
    return found


def _evidence(
    settings: SelectSettings,
    store: ArtifactStore,
    features: Artifact | None,
    labels: np.ndarray,
    distances: np.ndarray | None,
    candidates: np.ndarray,
) -> dict[str, Any]:
    """What a method looks at that compares samples of all classes; all of it is in memory here."""
    needs = selection.load_method(settings.method).NEEDS
    if features is None:
        return {}
    if needs == "distances":
        return {"distances": distances}
    vectors = common.column(store.read(features, "features", ["feature"]), "feature")[candidates]
    if needs in ("features", "surroundings"):
        return {"features": vectors}
    from cwerm.algorithms.reweighting.head_training import train_head  # loads torch

    _, record = train_head(vectors, labels, seed=settings.seed)
    return {"outputs": record}


select = Stage("select", 2, _needs, SelectSettings.of, _run)
