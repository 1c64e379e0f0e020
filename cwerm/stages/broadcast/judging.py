"""The weights of one part of the samples: what a worker of the broadcast does."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cwerm.algorithms.spreading.agreement import label_agreement, without_own
from cwerm.data.images import decode
from cwerm.methods.samples import Batch, Reference, Run
from cwerm.runtime.session import cluster
from cwerm.stages import common, pixels
from cwerm.stages.broadcast.coreset_neighbors import Find
from cwerm.stages.broadcast.settings import BroadcastSettings
from cwerm.stages.classifiers import create_classifier
from cwerm.stages.labels_in_use import LabelReader
from cwerm.store.artifacts import Artifact, ArtifactStore, File
from cwerm.store.beside import Later, WriteBehind
from cwerm.store.writing import Writer

if TYPE_CHECKING:
    import pyarrow as pa

    from cwerm.algorithms.labels.judgement import Judgement
    from cwerm.methods.reweighting import Learned

IMAGES_AT_ONCE = 500


class Weighed(NamedTuple):
    """What became of a part."""

    file: File
    """Its unscaled weights."""
    sums: np.ndarray
    """By class, the sum of these and the number of samples, [2, classes]."""
    beliefs: File | None


@dataclass(frozen=True)
class Work:
    """What all parts have in common."""

    settings: BroadcastSettings
    store: ArtifactStore
    inputs: dict[str, Artifact]
    writer: Writer
    ids: np.ndarray
    """int64 [m], of the coreset, ascending."""
    reference: Reference
    device: str


class Weigh:
    """Judges the samples of one part, and writes their unscaled weights."""

    def __init__(self, work: Work, make_find: Callable[[], Find] | None) -> None:
        self.work, self.find = work, make_find() if make_find else None
        self.behind = WriteBehind()
        self.images = work.inputs["ingest"]
        self.labels = LabelReader(work.store, work.inputs["label"])
        self.starts = np.cumsum([0, *(part.rows for part in self.images.tables["images"])])
        self.learned = None
        if asked := work.settings.asked:
            names, learned = self.images.info["class_names"], work.inputs["reweight"]
            seed = work.settings.seed or 0
            self.learned = restore(asked, seed, work.store, learned, names, work.device)
        self.believed = work.inputs["reweight"].info.get("open", True)
        self.normalise: Any = None
        if work.settings.asked and work.settings.asked.reads == "images":
            from cwerm.algorithms.training.batches import Normaliser

            how = work.inputs["reweight"].info["pictures"]
            self.normalise = Normaliser(tuple(how["mean"]), tuple(how["std"]))
            self.size = int(how["image_size"])

    def __call__(self, number: int) -> Later[Weighed]:
        work, spreading = self.work, self.work.settings.spreading
        ids = np.arange(self.starts[number], self.starts[number + 1])
        in_use = self.labels.rows(int(self.starts[number]), int(self.starts[number + 1]))
        known, removed = in_use.known, in_use.removed
        labels = in_use.labels.astype(np.int64)
        vectors = self._features(number, len(ids))
        positions, agreement = np.empty((len(ids), 0), np.int64), None
        distances = np.empty((len(ids), 0), np.float32)
        nearest = ids, np.zeros(len(ids), np.float32), labels
        if self.find:
            distances, near = self.find(vectors)
            if spreading.leaves_one_out:
                distances, near = without_own(distances, near, ids)
            positions = np.searchsorted(work.ids, near)
            neighbor_labels = work.reference.labels[positions]
            nearest = near[:, 0], distances[:, 0], neighbor_labels[:, 0]
            if spreading.asks_agreement:
                agreement = label_agreement(neighbor_labels, labels)[:, None]
        place = np.minimum(np.searchsorted(work.ids, ids), len(work.ids) - 1)
        rows = np.where(work.ids[place] == ids, place, -1)
        judged = []
        for some, inputs in self._inputs(number, vectors):
            near_agreement = None if agreement is None else agreement[some]
            batch = Batch(
                inputs,
                labels[some],
                near_agreement,
                known[some],
                rows=rows[some],
                neighbors=positions[some],
                distances=distances[some],
            )
            judged.append(spreading.spread(batch, work.reference, self.learned))
        weights, sums = _table(ids, labels, removed, nearest, judged)
        write = functools.partial(work.writer.write_unpublished, near=True)
        written = self.behind.write(write, "weights", number, weights)
        beliefs = self._beliefs(ids, judged)
        if beliefs is None:
            return Later(lambda: Weighed(written.result(), sums, None))
        believed = self.behind.write(work.writer.write_part, "beliefs", number, beliefs)
        return Later(lambda: Weighed(written.result(), sums, believed.result()))

    def _beliefs(self, ids: np.ndarray, judged: list[Judgement]) -> pa.Table | None:
        """How probable the classes are, where wrong labels were found."""
        if not self.believed or any(some.belief is None for some in judged):
            return None
        from cwerm.algorithms.training.targets import most_probable

        beliefs = most_probable(np.concatenate([some.belief for some in judged]))
        columns = (list(values) for values in beliefs)
        return common.table("beliefs", ids, *columns)

    def _features(self, part: int, rows: int) -> np.ndarray:
        """Those of the part, as they are stored; empty where nothing asks for them."""
        if "extract" not in self.work.inputs:
            return np.empty((rows, 0), np.float32)
        read = self.work.store.read_part(self.work.inputs["extract"], "features", part)
        return common.column(read, "feature")

    def _inputs(self, part: int, vectors: np.ndarray) -> Any:
        """Slices of the part, and what the spreading is given of their samples."""
        if self.normalise is None:
            yield slice(None), vectors.astype(np.float32)
            return
        import torch

        rows = self.work.store.read_part(self.images, "images", part, ["image"])
        images = common.images_of(rows)
        for start in range(0, len(images), IMAGES_AT_ONCE):
            some = slice(start, start + IMAGES_AT_ONCE)
            squares = [pixels.to_square(decode(image), self.size) for image in images[some]]
            batch = torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2))
            yield some, self.normalise(batch).numpy()


def restore(
    method: Any, seed: int, store: ArtifactStore, learned: Artifact, names: list[str], device: str
) -> Learned:
    """What the reweighting learned, from the files of its artifact."""
    from safetensors.torch import load

    cluster.check_device(device)
    classifier = None
    if method.reads == "images":
        from cwerm.algorithms.networks.timm_models import channels_last

        size = int(learned.info["pictures"]["image_size"])
        model = create_classifier("reweight.model", method.model, len(names), size, seed)
        classifier = channels_last(model)
    state = {
        name.removesuffix(".safetensors"): load(store.read_file(learned, name))
        for name in learned.files
        if name.endswith(".safetensors")
    }
    run = Run(names, seed=seed, device=device, classifier=classifier)
    return method.restore(state, run)


def _table(
    ids: np.ndarray,
    labels: np.ndarray,
    removed: np.ndarray,
    nearest: tuple[np.ndarray, np.ndarray, np.ndarray],
    judged: list[Judgement],
) -> tuple[pa.Table, np.ndarray]:
    """One part of the weights as they are, and by class their sums and counts."""
    weights = np.concatenate([some.weight for some in judged])
    weights[removed] = 0
    columns: list[Any] = [ids, labels, weights, *nearest]
    for name in ("quality", "suggested", "suggestion_probability", "duplicate_of"):
        values = [getattr(some, name) for some in judged]
        columns.append(None if values[0] is None else np.concatenate(values))
    counts = np.bincount(labels)
    by_class = np.split(weights[np.argsort(labels, kind="stable")], np.cumsum(counts)[:-1])
    sums = [math.fsum(own.tolist()) for own in by_class]
    return common.table("weights", *columns), np.array([sums, np.bincount(labels, ~removed)])
