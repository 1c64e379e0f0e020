"""Reweight: Meta-Weight-Net on the coreset -> ``coreset_weights``, the weight net and its history.

The method is sequential and the coreset small, so it runs in one actor, on one GPU where there is one.
"""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from cwerm import console, schema
from cwerm.artifacts import Artifact, ArtifactStore, Writer, artifact_key
from cwerm.config import Job
from cwerm.errors import blame
from cwerm.stages import common, extract, ingest, pixels, runtime, select
from cwerm.stages.board import progress_board
from cwerm.stages.classifiers import batch_bytes, create_classifier

NAME = "reweight"
SAVE_SECONDS = 5.0  # between saved states, from which an interrupted run goes on
MOST_CPUS = 8
LEAST_STEPS, LEAST_EPOCHS = 1500, 10
MEMORY_MARGIN = 4  # the graph of the meta-gradient holds several passes over the batch


def key(job: Job, store: ArtifactStore) -> str:
    """Depends on coreset and meta set, the reweight section and the seed."""
    return artifact_key(NAME, _parameters(job), [select.key(job, store)])


def run(job: Job, store: ArtifactStore) -> Artifact:
    """Learn the weight net and the weights of the coreset (paper, section 4.2)."""
    import ray

    images = common.require(ingest, job, store)
    coreset_size = common.require(select, job, store).rows("coreset")
    runtime.ensure_ray(job)
    writer = Writer(store, NAME, key(job, store), _parameters(job))
    check_batch(job, images)
    cpus = min(MOST_CPUS, max(node["Resources"].get("CPU", 1) for node in ray.nodes()))
    actor = ray.remote(_Reweighter).options(
        num_cpus=cpus,
        num_gpus=1 if runtime.num_gpus() else 0,
        max_restarts=2,
        max_task_retries=2,
    )
    if writer.storage.size(_state_path(writer)) is not None:
        console.note("goes on from the state that an earlier attempt saved")
    with progress_board(num_epochs(job, coreset_size), "reweight") as board, runtime.user_errors():
        result = ray.get(actor.remote().fit.remote(job, store, writer, int(cpus), board))
    writer.write_file("weight_net.safetensors", result["weight_net"])
    writer.write_file("history.json", json.dumps(result["history"], indent=1).encode())
    table = pa.table(
        [
            pa.array(result["ids"], pa.int64()),
            pa.array(result["weights"], pa.float32()),
            pa.array(result["losses"], pa.float32()),
        ],
        schema=schema.table_schema("coreset_weights"),
    )
    artifact = writer.commit({"coreset_weights": [writer.write_part("coreset_weights", 0, table)]})
    writer.storage.delete(_state_path(writer))
    return artifact


def num_epochs(job: Job, coreset_size: int) -> int:
    """Epochs as asked, or enough for the weight net, which moves once a step, to learn."""
    if job.reweight.epochs is not None:
        return job.reweight.epochs
    steps_an_epoch = -(-coreset_size // job.reweight.batch_size)
    return max(LEAST_EPOCHS, -(-LEAST_STEPS // steps_an_epoch))


def check_batch(job: Job, images: Artifact) -> None:
    """Refuse a batch of images that is too large for the memory.

    Raises:
        UserError: naming the key to change.
    """
    if job.reweight.input == "images":
        size = pixels.square_size(job.reweight.image_size, images)
        need = batch_bytes("reweight", job.reweight.model, len(images.info["class_names"]), size)
        runtime.check_memory("reweight.batch_size", MEMORY_MARGIN * need, job.reweight.batch_size)


def _parameters(job: Job) -> dict[str, Any]:
    return {**job.reweight.model_dump(), "seed": job.seed}


def _state_path(writer: Writer) -> str:
    return f"artifacts/{NAME}/{writer.key}/state.pt"


class _Reweighter:
    """The actor: reads coreset and meta set, runs Meta-Weight-Net, saves its state as it goes."""

    def fit(
        self, job: Job, store: ArtifactStore, writer: Writer, cpus: int, board: Any
    ) -> dict[str, Any]:
        import torch
        from safetensors.torch import save

        from cwerm.algorithms.metaweight import MetaWeightNet

        # steps of the head on features are too small to share: threads would only wait for each other
        threads = min(cpus, psutil.cpu_count(logical=False) or cpus)
        torch.set_num_threads(threads if job.reweight.input == "images" else 1)
        images = common.require(ingest, job, store)
        selection = common.require(select, job, store)
        coreset, meta = store.read(selection, "coreset"), store.read(selection, "meta")
        inputs, meta_inputs, classifier = _inputs(
            job, store, images, selection, common.column(coreset, "id"), common.column(meta, "id")
        )
        section = job.reweight
        method = MetaWeightNet(
            classifier,
            epochs=num_epochs(job, len(coreset)),
            batch_size=section.batch_size,
            meta_batch_size=section.meta_batch_size,
            lr=section.lr,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            weight_lr=section.weight_lr,
            average_last=section.average_last,
            hidden=section.hidden,
            seed=job.seed,
        )
        saved = time.monotonic()

        def on_epoch(epoch: int, state: Any) -> None:
            nonlocal saved
            board.post.remote(epoch + 1)
            if time.monotonic() - saved > SAVE_SECONDS:
                buffer = io.BytesIO()
                torch.save(state(), buffer)
                writer.storage.write_bytes(_state_path(writer), buffer.getvalue())
                saved = time.monotonic()

        with blame("reweight"):
            weights = method.fit(
                inputs,
                common.column(coreset, "label").astype(np.int64),
                meta_inputs,
                common.column(meta, "label").astype(np.int64),
                on_epoch=on_epoch,
                state=_saved_state(writer),
            )
        weight_net = {k: v.cpu().contiguous() for k, v in method.weight_net.state_dict().items()}
        return {
            "ids": common.column(coreset, "id"),
            "weights": weights,
            "losses": method.losses_,
            "weight_net": save(weight_net),
            "history": method.history_,
        }


def _saved_state(writer: Writer) -> dict[str, Any] | None:
    import torch

    try:
        data = writer.storage.read_bytes(_state_path(writer))
    except FileNotFoundError:
        return None
    return torch.load(io.BytesIO(data), weights_only=True)


def _inputs(
    job: Job,
    store: ArtifactStore,
    images: Artifact,
    selection: Artifact,
    ids: np.ndarray,
    meta_ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Inputs of coreset and meta set, and the classifier (None for a head on the features)."""
    meta_table = selection.info["meta_images"]
    if job.reweight.input == "features":
        features = common.require(extract, job, store)
        meta_table = meta_table.replace("images", "features")
        vectors = np.stack(common.take_rows(store, features, "features", "feature", ids))
        meta = np.stack(common.take_rows(store, features, meta_table, "feature", meta_ids))
        return vectors.astype(np.float32), meta.astype(np.float32), None
    import torch

    size = pixels.square_size(job.reweight.image_size, images)
    train = pixels.take_pixels(store, images, "images", ids, size)
    meta = pixels.take_pixels(store, images, meta_table, meta_ids, size)
    normalise = pixels.Normaliser.of(train)
    classes = len(images.info["class_names"])
    model = create_classifier("reweight.model", job.reweight.model, classes, size, job.seed)
    return (
        normalise(torch.from_numpy(train)).numpy(),
        normalise(torch.from_numpy(meta)).numpy(),
        model.to(memory_format=torch.channels_last),
    )
