"""What every stage needs: its input artifacts, found by key, and rows of a table by id."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np

from cwerm.errors import UserError
from cwerm.job.tree import Job
from cwerm.store.artifacts import Artifact, ArtifactStore


def require(stage: ModuleType, job: Job, store: ArtifactStore) -> Artifact:
    """The committed artifact of an earlier stage for this very job.

    Raises:
        UserError: that stage has not run yet.
    """
    artifact = store.find(stage.NAME, stage.key(job, store))
    if artifact is None:
        raise UserError(
            f"{stage.NAME}: no artifact for this job in '{store.storage.root}'; "
            f"run `cwerm stage {stage.NAME} JOB` first, or `cwerm run JOB` for all stages"
        )
    return artifact


def column(table: Any, name: str) -> np.ndarray:
    """A numeric or fixed-shape tensor column as one NumPy array."""
    values = table.column(name).combine_chunks()
    if hasattr(values, "to_numpy_ndarray"):
        return values.to_numpy_ndarray()
    return values.to_numpy(zero_copy_only=False)


def take_rows(
    store: ArtifactStore, artifact: Artifact, table: str, name: str, ids: np.ndarray
) -> list[Any]:
    """Values of one column for ``ids``, in their order; reads only the parts that hold them.

    Ids are contiguous from 0 in the order of the parts, so a part's rows are a range of ids.
    """
    ends = np.cumsum([part.rows for part in artifact.tables[table]])
    part_of = np.searchsorted(ends, ids, side="right")
    values: list[Any] = [None] * len(ids)
    for index in np.unique(part_of):
        rows = store.read_part(artifact, table, int(index), [name])
        start = ends[index] - artifact.tables[table][index].rows
        wanted = np.flatnonzero(part_of == index)
        cells = images_of(rows) if name == "image" else column(rows, name)
        places = ids[wanted] - start
        # taken as a copy: views of single rows would keep every part in memory
        taken = cells[places] if isinstance(cells, np.ndarray) else [cells[i] for i in places]
        for position, value in zip(wanted, taken, strict=True):
            values[position] = value
    return values


def dimensions(store: ArtifactStore, features: Artifact) -> int:
    """Length of a feature vector."""
    field = store.read_part(features, "features", 0, ["feature"]).schema.field("feature")
    (length,) = field.type.shape
    return int(length)


def images_of(table: Any) -> list[bytes] | np.ndarray:
    """The image column: encoded bytes, or an array of uint8 pixels for each row."""
    values = table.column("image").combine_chunks()
    if hasattr(values, "to_numpy_ndarray"):
        return values.to_numpy_ndarray()
    return values.to_pylist()


def labels_of(store: ArtifactStore, images: Artifact) -> np.ndarray:
    """Labels of all training images in the order of their ids, int32 [n]."""
    return column(store.read(images, "labels", ["label"]), "label")


def clean_labels_of(store: ArtifactStore, images: Artifact) -> np.ndarray | None:
    """True labels of all training images where noise was made of them, int32 [n], or None."""
    labels = store.read(images, "labels")
    # clean data that were ingested before noise was an option have no such column
    if "clean_label" not in labels.column_names or labels.column("clean_label").null_count:
        return None
    return column(labels, "clean_label")


def right_labels_of(store: ArtifactStore, images: Artifact) -> np.ndarray:
    """Labels of all training images as they would be without the noise that was made, int32 [n]."""
    clean = clean_labels_of(store, images)
    return labels_of(store, images) if clean is None else clean


def tensor_metadata(data: bytes) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors."""
    length = int.from_bytes(data[:8], "little")  # of the JSON header, as safetensors defines it
    return json.loads(data[8 : 8 + length])["__metadata__"]
